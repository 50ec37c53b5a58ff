# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Writes report.html, report.md and report.csv; the last has every number in a row of its own."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from ...fileio import write_atomically
from .cells import CellFiles
from .markdown import render_markdown
from .page import render_page
from .parser import read_results
from .schema import HEADLINE_METRICS, UNKNOWN, Estimate, ModelResults, Results, group_of
from .text import plain_text

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
    **dict.fromkeys(('latency_ms', 'latency_low_ms', 'latency_high_ms'), 'ms'),
}
"""Units of quantities that are no fractions."""
FORMULA_STARTS = ('=', '+', '-', '@')
"""A spreadsheet takes text that begins so for a formula and computes it (CSV injection)."""


def write_report(folder: str | Path) -> Path:
    """Write report.html, report.md and report.csv beside the results.json of a run.

    The run may be going on: the report says what is missing. The page needs no other file and no
    network; example images of detectors are corrupted again, as the run did it, and those of
    classifiers are read from examples/.

    Args:
        folder (str | Path): Where results.json and cells/ are, as
            :mod:`mmdet_adasap.robustness.results` describes them.

    Returns:
        Path: report.html.

    Raises:
        FileNotFoundError: If there is no results.json.
        MalformedResultsError: Naming the file and the key, if something there is not what
            robustness.py writes.
        OSError: If a file cannot be written.
    """
    results = read_results(Path(folder) / 'results.json')
    return write_files(results, CellFiles(results), Path(folder))


def write_files(
    results: Results, files: CellFiles, out: Path, extra_notes: tuple[str, ...] = ()
) -> Path:
    """Write the three files of a report into an existing folder.

    Args:
        results (Results): What it is about.
        files (CellFiles): The cells.
        out (Path): The folder.
        extra_notes (tuple[str, ...]): Notes for the top, besides those of
            :func:`~.notices.notices`.

    Returns:
        Path: report.html.

    Raises:
        MalformedResultsError: If the file of a cell is malformed.
        OSError: If a file cannot be written.
    """
    html, notes = render_page(results, files, extra_notes)
    # All are made before the first is written: either all are new or none.
    texts = {
        'report.md': render_markdown(results, files, notes),
        'report.csv': render_csv(results, files),
        'report.html': html,
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    return out / 'report.html'


def render_csv(results: Results, files: CellFiles) -> str:
    """Return all numbers as CSV, in columns ``COLUMNS``.

    'quantity' is 'P' for cells (those of clean images have the corruption 'none' and severity 0;
    missing ones have no value), else a mean or a cost; 'set' is another test set, and 'R' what
    share P there is of clean P. Fractions, but CE in percent; 'low' to 'high' is the 95 %
    interval, 'difference' is minus the reference. Names that a spreadsheet would compute have an
    apostrophe in front.

    Args:
        results (Results): What the report is about.
        files (CellFiles): The cells, for intervals of differences.

    Returns:
        str: The content of report.csv.

    Raises:
        MalformedResultsError: If the file of a cell is malformed.
    """
    out = io.StringIO()
    # '\n': the csv module would write '\r\n', and lines of the three files would differ.
    writer = csv.DictWriter(out, COLUMNS, restval='', lineterminator='\n')
    writer.writeheader()
    for model in results.models.values():
        for row in _rows(results, model, files):
            writer.writerow({key: _csv_value(value) for key, value in row.items()})
    return out.getvalue()


def _rows(results: Results, model: ModelResults, files: CellFiles) -> Iterator[dict]:
    """Return the rows of one model, each with the columns that it has values for."""

    def row(
        quantity: str, estimate: Estimate, difference: Estimate | None = None, **where: object
    ) -> dict:
        unit = UNITS.get(quantity, 'fraction')
        columns = {'model': model.name, 'quantity': quantity, 'unit': unit, **where}
        # An Estimate is a tuple in the order of these columns.
        columns |= zip(('value', 'low', 'high'), estimate, strict=True)
        if difference is not None:
            columns |= zip(COLUMNS[-3:], difference, strict=True)
        return columns

    clean = {'corruption': 'none', 'severity': 0}
    yield row('P', model.metrics['clean'], model.difference.get('clean'), **clean)
    for corruption in results.corruptions:
        where = {'corruption': corruption, 'group': group_of(corruption)}
        for severity in results.severities:
            estimate = model.cells.get(corruption, {}).get(severity, UNKNOWN)
            difference = None
            if model.name != results.reference:
                difference = files.difference(model.name, (corruption, severity))
            yield row('P', estimate, difference, severity=severity, **where)
        if corruption in model.per_corruption:
            yield row('mean P', model.per_corruption[corruption], **where)
        for quantity, errors in (('CE', model.ce), ('relative CE', model.relative_ce)):
            if corruption in errors:
                yield row(quantity, Estimate(errors[corruption]), **where)
    for group, estimate in model.per_group.items():
        yield row('mean P', estimate, group=group)
    for severity, estimate in model.per_severity.items():
        yield row('mean P', estimate, severity=severity)
    # Clean P stands above, with the cells.
    for key in HEADLINE_METRICS[1:]:
        yield row(key, model.metrics[key], model.difference.get(key))
    for name, on_set in model.shifted_sets.items():
        for quantity, estimate in on_set.metrics.items():
            yield row(quantity, estimate, on_set.difference.get(quantity), **{'set': name})
    yield row('mCE', Estimate(model.mce))
    yield row('relative mCE', Estimate(model.relative_mce))
    for name, metrics in model.per_class.items():
        for quantity, value in zip(('P', 'mPC', 'rPC'), metrics, strict=True):
            where = clean if quantity == 'P' else {}
            yield row(quantity, Estimate(value), **where, **{'class': name})
    for key in ('params', 'flops', 'latency_ms'):
        yield row(key, Estimate(getattr(model.cost, key)))
    # No interval of the median, which the columns low and high would make them.
    if model.cost.latency_spread is not None:
        for key in ('latency_low_ms', 'latency_high_ms'):
            yield row(key, Estimate(getattr(model.cost, key)))


def _csv_value(value: object) -> str:
    if value is None:
        return ''
    if not isinstance(value, str):
        return repr(value)  # the shortest text that reads back as the same float
    # An apostrophe in front makes a spreadsheet take it for text.
    text = plain_text(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
