# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The table of P by class."""

from typing import NamedTuple

from .axes import ModelLabel, model_labels
from .colours import sequential_class
from .schema import ClassMetrics, Results
from .tables import TableCell
from .text import DASH, format_percent

MAX_CLASSES = 60
"""Of more classes the page has those with the lowest mPC; Markdown and CSV have all."""
NO_OBJECTS = ClassMetrics(None, None, None)


class ClassTable(NamedTuple):
    """Classes in rows, clean P and mPC of each model in columns.

    Attributes:
        models (list[ModelLabel]): The models that have results by class.
        rows (dict[str, list[TableCell]]): By class two cells for each model.
        note (str): Which classes these are; empty if all.
    """

    models: list[ModelLabel]
    rows: dict[str, list[TableCell]]
    note: str


def class_names(results: Results) -> list[str]:
    """Return the classes, the one with the lowest mPC of the reference first."""
    names = {name: None for model in results.models.values() for name in model.per_class}
    reference = results.models[results.reference].per_class
    numbers = {name: i for i, name in enumerate(results.classes)}

    def sort_key(name: str) -> tuple:
        mpc = reference.get(name, NO_OBJECTS).mpc
        # Classes without objects last; of equal ones the order of the data set, then of names.
        return mpc is None, mpc or 0.0, numbers.get(name, len(numbers)), name

    return sorted(names, key=sort_key)


def class_table(results: Results) -> ClassTable | None:
    """Return P by class, of many classes that of the hardest; None if there is none."""
    every = class_names(results)
    names = every[:MAX_CLASSES]
    models = [model for model in results.models.values() if model.per_class]
    if not names or not models:
        return None
    labels = model_labels(results)
    # Over all classes, not only those shown: 'or 1.0' avoids a division by 0.
    highest = max(one.mpc or 0 for model in models for one in model.per_class.values()) or 1.0
    rows: dict[str, list[TableCell]] = {name: [] for name in names}
    for name, row in rows.items():
        for model in models:
            one = model.per_class.get(name, NO_OBJECTS)
            row.append(TableCell(format_percent(one.clean)))
            if one.mpc is None:
                row.append(
                    TableCell(DASH, title='no objects' if one.clean is None else 'not known')
                )
            else:
                colour = sequential_class(one.mpc, highest)
                row.append(TableCell(format_percent(one.mpc), f'number {colour}'))
    note = ''
    if len(every) > len(names):
        note = (
            f'The {len(names)} of {len(every)} classes with the lowest mPC of {results.reference}.'
        )
    return ClassTable([labels[model.name] for model in models], rows, note)
