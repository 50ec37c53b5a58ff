# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The models on other test sets of the same classes, as ImageNet-V2."""

from .marks import model_classes, named
from .markup import Markup, element
from .overview import number
from .reading import NOTHING, Figure, Model, Results
from .words import metric


def shift_names(results: Results) -> list[str]:
    """The sets."""
    return list(dict.fromkeys(name for m in results.models.values() for name in m.shifts))


def shift_columns(results: Results) -> list[str]:
    """What :func:`shift_figures` gives."""
    p = metric(results)
    return [
        heading
        for name in shift_names(results)
        for heading in (f'{p} on {name}', f'{name} / clean {p}')
    ]


def shift_figures(results: Results, model: Model) -> list[Figure]:
    """P on each set, and what share of the clean P it is."""
    return [
        model.shifts.get(name, {}).get(key, NOTHING)
        for name in shift_names(results)
        for key in ('P', 'R')
    ]


def shift_table(results: Results) -> Markup | None:
    """Models in rows; None without other sets."""
    if not shift_names(results):
        return None
    kinds = model_classes(results)
    head = [
        element('th', 'model', scope='col'),
        *(element('th', name, scope='col', class_='number') for name in shift_columns(results)),
    ]
    rows = [
        element(
            'tr',
            element('th', named(kinds[model.name], model.name), scope='row'),
            *map(number, shift_figures(results, model)),
        )
        for model in results.models.values()
    ]
    table = element(
        'table', element('thead', element('tr', *head)), element('tbody', *rows), class_='models'
    )
    return element(
        'div', table, class_='wide', tabindex='0', role='region', aria_label='Other test sets'
    )
