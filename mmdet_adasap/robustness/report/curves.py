# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""P over severity: the mean, and each group of corruptions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .marks import (
    bounds,
    drawing,
    grid,
    label_width,
    line,
    marker,
    model_classes,
    spread,
    text,
    ticks,
)
from .markup import Markup, element, join
from .reading import OTHER, Figure, Model, Results
from .words import shortened, with_ends

WIDTH, HEIGHT, TOP, BOTTOM, LEFT = 380, 250, 28, 34, 34
LETTERS = 16
GAP = 13.0
Place = Callable[[float], float]


class Series(NamedTuple):
    """A line: the figure at each severity, 0 for clean images."""

    name: str
    kind: str
    figures: dict[int, Figure]


def curves(results: Results) -> Markup | None:
    """The mean and each group in a panel of its own, all to the same scale."""
    panels: dict[str, list[Series]] = {}
    all_of_them = results.corruptions
    panels['mean over corruptions' if len(all_of_them) > 1 else all_of_them[0]] = _series(
        results, {model.name: model.per_severity for model in results.models.values()}
    )
    for group, corruptions in results.groups.items():
        if group != OTHER and len(results.groups) > 1:
            panels[group] = _series(
                results,
                {
                    model.name: group_means(model, corruptions, results.severities)
                    for model in results.models.values()
                },
            )
    panels = {title: panel for title, panel in panels.items() if panel}
    if not panels:
        return None
    drawn = [
        100 * end
        for panel in panels.values()
        for series in panel
        for figure in series.figures.values()
        for end in figure
        if end is not None
    ]
    axis = bounds(min(drawn), max(drawn))
    return grid(
        [_panel(title, panel, results.severities, axis) for title, panel in panels.items()]
    )


def group_means(
    model: Model, corruptions: Sequence[str], severities: Sequence[int]
) -> dict[int, Figure]:
    """The mean of P over corruptions at each severity where all of them are there."""
    rows = [model.cells.get(corruption, {}) for corruption in corruptions]
    return {
        severity: Figure(float(np.mean([row[severity].value for row in rows])))
        for severity in severities
        if all(severity in row for row in rows)
    }


def _series(results: Results, figures: dict[str, dict[int, Figure]]) -> list[Series]:
    """A line for each model that has any of these figures, from clean images on."""
    kinds = model_classes(results)
    series = []
    for name, own in figures.items():
        clean = results.models[name].figures['clean']
        start = {} if clean.value is None else {0: clean}
        if own:
            series.append(Series(name, kinds[name], {**start, **own}))
    return series


def _panel(
    title: str, panel: Sequence[Series], severities: Sequence[int], axis: tuple[float, float]
) -> Markup:
    names = [series.name for series in panel]
    right = WIDTH - 18 - label_width(names, LETTERS)
    bottom = HEIGHT - BOTTOM
    columns = [0, *severities]

    def across(severity: int) -> float:
        return LEFT + 10 + columns.index(severity) / (len(columns) - 1) * (right - LEFT - 20)

    def down(value: float) -> float:
        return bottom - (100 * value - axis[0]) / (axis[1] - axis[0]) * (bottom - TOP)

    parts = [text(0, 14, title, 'strong')]
    for value in ticks(*axis):
        y = down(value / 100)
        parts.append(line(LEFT, y, right, y, 'axis' if value == axis[0] else 'rule'))
        parts.append(text(LEFT - 6, y + 4, f'{value:g}', 'soft end'))
    for severity in columns:
        label = str(severity) if severity else 'clean'
        parts.append(text(across(severity), bottom + 16, label, 'soft middle'))
    parts.append(text((LEFT + right) / 2, bottom + 31, 'severity', 'soft middle'))
    last = {}
    for i, series in enumerate(panel):
        # Several models at one severity stand side by side.
        aside = min(4.0, 16 / len(panel)) * (i - (len(panel) - 1) / 2)

        def moved(severity: int, aside: float = aside) -> float:
            return across(severity) + aside

        parts.append(_line(series, columns, moved, down))
        for severity, figure in series.figures.items():
            x, y = moved(severity), down(figure.value)
            if figure.low is not None:
                ends = down(figure.low), down(figure.high)
                parts.append(line(x, ends[0], x, ends[1], f'whisker {series.kind}'))
            where = f'severity {severity}' if severity else 'clean'
            label = f'{series.name}, {title}, {where}: {with_ends(figure)}'
            parts.append(marker(series.kind, x, y, 3.2, label))
        last[series.name] = down(series.figures[max(series.figures)].value)
    for name, y in spread(last, GAP, TOP + 6, bottom - 2).items():
        kind = next(series.kind for series in panel if series.name == name)
        label = element('title', name)
        parts.append(
            element(
                'text', label, shortened(name, LETTERS), x=right + 6, y=y + 4, class_=f'own {kind}'
            )
        )
    return drawing(WIDTH, HEIGHT, f'P over severity: {title}', *parts)


def _line(series: Series, columns: Sequence[int], across: Place, down: Place) -> Markup:
    """Lines between neighbours; a missing severity leaves a gap."""
    runs: list[list[str]] = [[]]
    for severity in columns:
        figure = series.figures.get(severity)
        if figure is None:
            runs.append([])
        else:
            runs[-1].append(f'{across(severity):.1f},{down(figure.value):.1f}')
    return join(
        *(
            element('polyline', points=' '.join(run), class_=f'curve {series.kind}')
            for run in runs
            if len(run) > 1
        )
    )
