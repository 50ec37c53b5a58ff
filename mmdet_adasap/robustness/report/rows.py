# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""report.csv: every figure in a row of its own, unrounded."""

import csv
import io
from collections.abc import Iterator

from .cells import CellFiles
from .markup import plain
from .reading import COMPARED, Figure, Model, Results, group_of

COLUMNS = (
    'model',
    'quantity',
    'corruption',
    'group',
    'severity',
    'class',
    'set',
    'unit',
    'value',
    'low',
    'high',
    'difference',
    'difference_low',
    'difference_high',
)
UNITS = {
    **dict.fromkeys(('CE', 'relative CE', 'mCE', 'relative mCE'), 'percent'),
    'params': 'parameters',
    'flops': 'multiply-accumulates',
    'latency_ms': 'ms',
}
"""Of quantities that are no fractions."""
FORMULA = ('=', '+', '-', '@')
"""What makes a spreadsheet compute a text."""


def comma_separated(results: Results, files: CellFiles) -> str:
    """The figures as CSV, in columns ``COLUMNS``.

    'quantity' is 'P' for cells (those of clean images have the corruption 'none' and severity 0;
    missing ones have no value), else a mean or a cost; 'set' is another test set, and 'R' what
    share P there is of clean P. Fractions, but CE in percent; 'low' to 'high' is the 95 %
    interval, 'difference' is minus the reference. Names that a spreadsheet would compute have an
    apostrophe in front.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval='', lineterminator='\n')
    writer.writeheader()
    for model in results.models.values():
        for row in _rows(results, model, files):
            writer.writerow({key: _written(value) for key, value in row.items()})
    return out.getvalue()


def _rows(results: Results, model: Model, files: CellFiles) -> Iterator[dict]:
    def row(quantity: str, figure: Figure, difference: Figure | None = None, **where) -> dict:
        unit = UNITS.get(quantity, 'fraction')
        found = {'model': model.name, 'quantity': quantity, 'unit': unit, **where}
        found |= zip(('value', 'low', 'high'), figure, strict=True)
        if difference is not None:
            found |= zip(COLUMNS[-3:], difference, strict=True)
        return found

    compared = model.name != results.reference
    clean = {'corruption': 'none', 'severity': 0}
    yield row('P', model.figures['clean'], model.difference.get('clean'), **clean)
    for corruption in results.corruptions:
        where = {'corruption': corruption, 'group': group_of(corruption)}
        for severity in results.severities:
            figure = model.cells.get(corruption, {}).get(severity, Figure(None))
            difference = files.difference(model.name, (corruption, severity)) if compared else None
            yield row('P', figure, difference, severity=severity, **where)
        if corruption in model.per_corruption:
            yield row('mean P', model.per_corruption[corruption], **where)
        for quantity, figures in (('CE', model.ce), ('relative CE', model.relative_ce)):
            if corruption in figures:
                yield row(quantity, Figure(figures[corruption]), **where)
    for group, figure in model.per_group.items():
        yield row('mean P', figure, group=group)
    for severity, figure in model.per_severity.items():
        yield row('mean P', figure, severity=severity)
    for key in COMPARED[1:]:
        yield row(key, model.figures[key], model.difference.get(key))
    for name, shift in model.shifts.items():
        for quantity, figure in shift.figures.items():
            yield row(quantity, figure, shift.difference.get(quantity), **{'set': name})
    yield row('mCE', Figure(model.mce))
    yield row('relative mCE', Figure(model.relative_mce))
    for name, one in model.per_class.items():
        for quantity, value in zip(('P', 'mPC', 'rPC'), one, strict=True):
            where = clean if quantity == 'P' else {}
            yield row(quantity, Figure(value), **where, **{'class': name})
    for key in ('params', 'flops', 'latency_ms'):
        yield row(key, Figure(getattr(model.cost, key)))


def _written(value: object) -> str:
    if value is None:
        return ''
    if not isinstance(value, str):
        return repr(value)  # floats come back as they were
    shown = plain(value)
    return f"'{shown}" if shown.startswith(FORMULA) else shown
