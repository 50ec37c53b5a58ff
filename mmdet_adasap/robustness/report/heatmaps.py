# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""P by corruption and severity: a map of each model, and of its difference to the reference."""

from collections.abc import Callable

from .cells import CellFiles
from .colours import STEPS, diverging_class, sequential_class
from .marks import grid, model_classes, named
from .markup import Markup, element, join
from .reading import Figure, Model, Results
from .words import hundredth, with_ends

Look = Callable[[Figure], tuple[str, str]]
"""Makes the words and the class of a cell."""


def maps(results: Results) -> Markup:
    """A map of each model, all in the same colours."""
    highest = _highest(results)

    def look(figure: Figure) -> tuple[str, str]:
        return hundredth(figure.value), sequential_class(figure.value, highest)

    def means(model: Model, corruption: str) -> Figure:
        return model.per_corruption.get(corruption, Figure(None))

    kinds = model_classes(results)
    tables = [
        _map(
            results,
            named(kinds[m.name], m.name),
            m.name,
            m.cells,
            lambda c, m=m: means(m, c),
            look,
        )
        for m in results.models.values()
    ]
    return join(_scale('q', '0', hundredth(highest)), grid(tables, 'maps'))


def difference_maps(results: Results, files: CellFiles) -> Markup | None:
    """A map of each model minus the reference, all in the same colours."""
    found = {model.name: _differences(results, model, files) for model in results.others}
    values = [
        abs(figure.value)
        for cells in found.values()
        for row in cells.values()
        for figure in row.values()
        if figure.value is not None
    ]
    if not values:
        return None
    # Rounded up, so that a difference of nothing has no colour.
    widest = max(*values, 0.01)
    sure = [
        f for cells in found.values() for row in cells.values() for f in row.values() if f.sure
    ]
    drawn = any(
        f.low is not None for c in found.values() for row in c.values() for f in row.values()
    )

    def look(figure: Figure) -> tuple[str, str]:
        kind = diverging_class(figure.value, widest)
        shown = hundredth(figure.value, signed=True)
        return shown, f'{kind} sure' if figure.sure else kind

    kinds = model_classes(results)
    tables = [
        _map(
            results,
            join(named(kinds[m.name], m.name), ' minus ', results.reference),
            f'{m.name} minus {results.reference}',
            found[m.name],
            lambda c, m=m: _mean_difference(results, m, c),
            look,
        )
        for m in results.others
    ]
    note = (
        f'Bold and underlined: the 95 % interval of that cell lies on one side of 0, '
        f'{len(sure)} of {len(values)} cells; one in twenty would by chance.'
        + (' The mean has none.' if len(results.severities) > 1 else '')
        if drawn
        else 'Without intervals: which of these are more than chance is not known.'
    )
    return join(
        _scale('d', hundredth(-widest), hundredth(widest, signed=True)),
        element('p', note, class_='note'),
        grid(tables, 'maps'),
    )


def _highest(results: Results) -> float:
    values = [
        figure.value
        for model in results.models.values()
        for row in model.cells.values()
        for figure in row.values()
    ]
    clean = [model.figures['clean'].value or 0 for model in results.models.values()]
    return max([*values, *clean], default=0) or 1.0


def _differences(results: Results, model: Model, files: CellFiles) -> dict[str, dict[int, Figure]]:
    reference = results.models[results.reference]
    return {
        corruption: {
            severity: files.difference(model.name, (corruption, severity))
            for severity in results.severities
            if severity in model.cells.get(corruption, {})
            and severity in reference.cells.get(corruption, {})
        }
        for corruption in results.corruptions
    }


def _mean_difference(results: Results, model: Model, corruption: str) -> Figure:
    pair = [m.per_corruption.get(corruption) for m in (model, results.models[results.reference])]
    return Figure(None) if None in pair else Figure(pair[0].value - pair[1].value)


def _map(
    results: Results,
    caption: Markup,
    title: str,
    cells: dict[str, dict[int, Figure]],
    mean: Callable[[str], Figure],
    look: Look,
) -> Markup:
    several = len(results.severities) > 1
    columns = 1 + len(results.severities) + several
    head = element(
        'tr',
        element('th', 'severity', scope='col', class_='soft'),
        *(element('th', severity, scope='col') for severity in results.severities),
        element('th', 'mean', scope='col') if several else None,
    )
    bodies = []
    for group, corruptions in results.groups.items():
        rows = [
            element(
                'tr',
                element('th', group, scope='rowgroup', colspan=str(columns)),
                class_='group',
            )
        ]
        for corruption in corruptions:
            row = cells.get(corruption, {})
            rows.append(
                element(
                    'tr',
                    element('th', corruption, scope='row'),
                    *(
                        _cell(row.get(s, Figure(None)), f'{title}, {corruption} {s}', look)
                        for s in results.severities
                    ),
                    _cell(mean(corruption), f'{title}, {corruption}, mean', look, 'mean')
                    if several
                    else None,
                )
            )
        bodies.append(element('tbody', *rows))
    body = element(
        'table', element('caption', caption), element('thead', head), *bodies, class_='map'
    )
    return element('div', body, class_='wide')


def _cell(figure: Figure, title: str, look: Look, kind: str = '') -> Markup:
    if figure.value is None:
        return element('td', '·', class_=f'gap {kind}'.strip(), title=f'{title}: missing')
    shown, colour = look(figure)
    return element(
        'td', shown, class_=f'{colour} {kind}'.strip(), title=f'{title}: {with_ends(figure)}'
    )


def _scale(prefix: str, low: str, high: str) -> Markup:
    boxes = [element('span', class_=f'{prefix}{step}') for step in range(STEPS + 1)]
    return element(
        'p',
        element('span', low),
        element('span', *boxes, class_='boxes'),
        element('span', high),
        class_='scale',
        aria_hidden='true',
    )
