# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The models side by side: a table, and the differences drawn with their intervals."""

from .marks import drawing, grid, line, model_classes, named, text, ticks
from .markup import Markup, element, join
from .reading import COMPARED, Figure, Model, Results
from .words import NONE, decimal, ends, hundredth, names, quantity, shortened, with_ends

ROW, TOP, WIDTH, LETTERS = 26, 26, 380, 18


def table(results: Results) -> Markup:
    """The figures of each model, the reference first."""
    classes = model_classes(results)
    compared = bool(results.others)
    called = names(results)
    columns = [*called.values(), 'mCE', 'parameters', 'GFLOPs', 'ms an image']
    over = element(
        'tr',
        element('th', 'model', scope='col', rowspan='2'),
        *(element('th', name, scope='col', rowspan='2', class_='number') for name in columns),
        element('th', 'minus ', results.reference, scope='colgroup', colspan='3', class_='over'),
    )
    under = element(
        'tr', *(element('th', called[key], scope='col', class_='number') for key in COMPARED)
    )
    plain = element(
        'tr',
        element('th', 'model', scope='col'),
        *(element('th', name, scope='col', class_='number') for name in columns),
    )
    rows = [_row(results, model, classes[model.name]) for model in results.models.values()]
    return element(
        'div',
        element(
            'table',
            element('thead', join(over, under) if compared else plain),
            element('tbody', *rows),
            class_='models',
        ),
        class_='wide',
        tabindex='0',
        role='region',
        aria_label='Models side by side',
    )


def differences(results: Results) -> Markup | None:
    """Each model minus the reference, as points with whiskers around 0."""
    models = [
        model
        for model in results.others
        if any(figure.value is not None for figure in model.difference.values())
    ]
    if not models:
        return None
    figures = [figure for model in models for figure in model.difference.values()]
    drawn = any(figure.low is not None for figure in figures)
    # Where all models are equal the axis has some length all the same.
    reach = 100 * max(abs(end) for figure in figures for end in figure if end is not None) or 1
    panels = [_panel(results, models, key, reach * 1.05) for key in COMPARED]
    return element(
        'figure',
        grid(panels),
        element(
            'figcaption',
            'Points of 100 minus ',
            results.reference,
            '. Filled: the 95 % interval lies on one side of 0.' if drawn else '.',
        ),
    )


def _row(results: Results, model: Model, kind: str) -> Markup:
    cost = model.cost
    cells = [number(model.figures[key]) for key in COMPARED]
    cells += [
        element('td', shown, class_='number')
        for shown in (
            decimal(model.mce),
            quantity_of_parameters(cost.params),
            quantity(None if cost.flops is None else cost.flops / 1e9),
            quantity(cost.latency_ms),
        )
    ]
    if results.others:
        if model.name == results.reference:
            cells.append(element('td', 'reference', colspan='3', class_='note'))
        else:
            cells += [difference(model.difference.get(key)) for key in COMPARED]
    return element('tr', element('th', named(kind, model.name), scope='row'), *cells)


def quantity_of_parameters(params: int | None) -> str:
    """Parameters in millions."""
    return NONE if params is None else f'{quantity(params / 1e6)} M'


def number(figure: Figure) -> Markup:
    """A cell with a figure and its interval."""
    interval = ends(figure)
    small = element('small', interval) if interval else None
    return element('td', hundredth(figure.value), small, class_='number')


def difference(figure: Figure | None) -> Markup:
    """A cell with a difference and its interval."""
    if figure is None or figure.value is None:
        return element('td', NONE, class_='number')
    shown = hundredth(figure.value, signed=True)
    interval = ends(figure, signed=True)
    small = element('small', interval) if interval else None
    kind = 'number' if figure.low is None else 'number sure' if figure.sure else 'number unsure'
    return element('td', shown, small, class_=kind)


def _panel(results: Results, models: list[Model], key: str, reach: float) -> Markup:
    classes = model_classes(results)
    left = 12 + min(6.2 * max(min(len(m.name), LETTERS) for m in models), 120)
    height = TOP + ROW * len(models) + 26
    bottom = TOP + ROW * len(models)

    def across(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (WIDTH - left - 14)

    heading = names(results)[key]
    parts = [text(left, 14, heading, 'strong')]
    for value in ticks(-reach, reach, 5):
        parts.append(
            line(across(value), TOP, across(value), bottom, 'axis' if not value else 'rule')
        )
        parts.append(text(across(value), bottom + 16, _tick(value), 'soft middle'))
    for i, model in enumerate(models):
        y = TOP + ROW * (i + 0.5)
        figure = model.difference.get(key, Figure(None))
        kind = classes[model.name]
        parts.append(text(left - 10, y + 4, shortened(model.name, LETTERS), 'end'))
        if figure.value is None:
            parts.append(text(across(0) + 6, y + 4, 'not known', 'soft'))
            continue
        title = element('title', f'{model.name}, {heading}: {with_ends(figure, signed=True)}')
        if figure.low is not None:
            ends_at = across(100 * figure.low), across(100 * figure.high)
            parts.append(line(ends_at[0], y, ends_at[1], y, f'whisker {kind}'))
        filled = 'mark' if figure.sure else 'mark hollow'
        dot = element(
            'circle', title, cx=across(100 * figure.value), cy=y, r=5.0, class_=f'{filled} {kind}'
        )
        parts.append(dot)
    return drawing(WIDTH, height, f'{heading} of each model minus {results.reference}', *parts)


def _tick(value: float) -> str:
    return f'{value:+g}'.replace('-', '\N{MINUS SIGN}') if value else '0'
