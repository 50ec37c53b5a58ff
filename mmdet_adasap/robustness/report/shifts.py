# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The models on other test sets of the same classes, as ImageNet-V2."""

from ..shifted_sets import FIGURES
from .marks import model_classes, named
from .markup import Markup, element
from .overview import difference, number
from .reading import NOTHING, Figure, Model, Results
from .words import metric


def shift_columns(results: Results) -> list[str]:
    """Headings of what :func:`shift_figures` gives."""
    p = metric(results)
    columns = []
    for name in results.sets:
        called = [f'{p} on {name}', f'{name} / clean {p}']
        columns += called
        if results.others:
            columns += [f'{each} minus {results.reference}' for each in called]
    return columns


def shift_figures(results: Results, model: Model) -> list[tuple[Figure, bool]]:
    """P on each set and its share of clean P, then both minus the reference: True goes with these.

    The reference itself has no difference.
    """
    figures = []
    for name in results.sets:
        shift = model.shifts.get(name)
        for_each = (shift.figures, shift.difference) if shift else ({}, {})
        for i, found in enumerate(for_each if results.others else for_each[:1]):
            figures += [(found.get(key, NOTHING), bool(i)) for key in FIGURES]
    return figures


def shift_table(results: Results) -> Markup | None:
    """Models in rows; None without other sets."""
    if not results.sets:
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
            *(
                difference(figure) if minus else number(figure)
                for figure, minus in shift_figures(results, model)
            ),
        )
        for model in results.models.values()
    ]
    table = element(
        'table', element('thead', element('tr', *head)), element('tbody', *rows), class_='models'
    )
    return element(
        'div', table, class_='wide', tabindex='0', role='region', aria_label='Other test sets'
    )
