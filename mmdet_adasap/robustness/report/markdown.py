# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""report.md: the numbers of the page as tables that GitHub renders."""

import re
from collections.abc import Iterable, Sequence

from .cells import CellFiles
from .charts import severity_means
from .classes import class_names
from .schema import UNKNOWN, Estimate, ModelResults, Results
from .tables import (
    WITHOUT_INTERVALS,
    headline_columns,
    mce_and_costs,
    shifted_set_columns,
    shifted_set_estimates,
)
from .text import (
    DASH,
    cost_note,
    format_estimate,
    format_percent,
    interval_caveats,
    metric_names,
    performance_name,
    plain_text,
    protocol_rows,
    subtitle,
    title,
    units_note,
    verdict,
)
from .worst_cells import find_worst_cells

# Underscores inside a word and most colons mean nothing in Markdown; escaped, they would only make
# the file hard to read. A colon before // is escaped, or GitHub makes a link of a bare URL.
SPECIAL = re.compile(r'([\\`*\[\]|~$#]|(?<!\w)_|_(?!\w)|:(?=//))')
ENTITIES = {'<': '&lt;', '>': '&gt;', '&': '&amp;', '@': '&#64;'}
"""GitHub also takes a few HTML tags, and @name for an account."""


def render_markdown(results: Results, files: CellFiles, notes: Sequence[str]) -> str:
    """Return the report as Markdown.

    Args:
        results (Results): What it is about.
        files (CellFiles): The cells.
        notes (Sequence[str]): Notes for the top.

    Returns:
        str: The content of report.md.

    Raises:
        MalformedResultsError: If the file of a cell is malformed.
    """
    parts = [f'# {escape_markdown(title(results))}', escape_markdown(subtitle(results))]
    parts += [f'> **Note:** {escape_markdown(one)}' for one in notes]
    parts += [escape_markdown(units_note(results)), _models(results)]
    if cost := cost_note(results):
        parts.append(escape_markdown(cost))
    parts.append(_verdict(results))
    if results.shifted_sets:
        parts += ['## Other test sets', _shifted_sets(results)]
    parts += ['## By corruption and severity']
    for model in results.models.values():
        parts += [f'### {escape_markdown(model.name)}', _cells(results, model)]
    for model in results.compared_models:
        heading = f'### {escape_markdown(model.name)} minus {escape_markdown(results.reference)}'
        parts += [heading, _differences(results, model, files)]
    parts += ['## Over severity', _severities(results)]
    if class_names(results):
        parts += ['## Classes', _classes(results)]
    parts += ['## Worst cells', _worst(results)]
    # Last, as on the page: who reads on needs it, the others need not pass over it.
    pairs = (
        (escape_markdown(name), escape_markdown(value)) for name, value in protocol_rows(results)
    )
    parts += ['## Protocol', table(('setting', 'value'), pairs, left=2)]
    return '\n\n'.join(parts) + '\n'


def escape_markdown(text: object) -> str:
    """Escape text so that Markdown shows it as it is, on one line and in a table as well."""
    # Before the entities, whose '#' must get no backslash.
    shown = SPECIAL.sub(r'\\\1', plain_text(text))
    return ''.join(ENTITIES.get(character, character) for character in shown)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a table; the first ``left`` columns are aligned left, the others right."""
    # GitHub takes the alignment of a column from the colons of this row.
    rule = ['---' if i < left else '---:' for i in range(len(head))]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (head, rule, *rows))


def _models(results: Results) -> str:
    names = metric_names(results)
    head = ['model', *headline_columns(results)]
    reference = escape_markdown(results.reference)
    if results.compared_models:
        head += [f'{name} minus {reference}' for name in names.values()]
    rows = []
    for model in results.models.values():
        row = [
            escape_markdown(model.name),
            *(format_estimate(model.metrics[key]) for key in names),
            *mce_and_costs(results, model),
        ]
        if results.compared_models:
            row += [format_estimate(model.difference.get(key, UNKNOWN), True) for key in names]
        rows.append(row)
    return table(head, rows)


def _verdict(results: Results) -> str:
    paragraphs = [
        f'**{escape_markdown(model)}** {escape_markdown(words)}'
        if model
        else escape_markdown(words)
        for words, model in verdict(results)
    ]
    caveats = interval_caveats(results)
    return '\n\n'.join([*paragraphs, *([escape_markdown(caveats)] if caveats else [])])


def _shifted_sets(results: Results) -> str:
    head = ['model', *shifted_set_columns(results)]
    rows = [
        [
            escape_markdown(model.name),
            *(
                format_estimate(estimate, is_difference)
                for estimate, is_difference in shifted_set_estimates(results, model)
            ),
        ]
        for model in results.models.values()
    ]
    return table([escape_markdown(each) for each in head], rows)


def _cells(results: Results, model: ModelResults) -> str:
    several = len(results.severities) > 1
    head = ['corruption', 'group', *map(str, results.severities), *(['mean'] if several else [])]
    rows = []
    for group, corruptions in results.groups.items():
        for name in corruptions:
            row = model.cells.get(name, {})
            shown = [
                format_percent(row[s].value) if s in row else 'missing' for s in results.severities
            ]
            mean = format_estimate(model.per_corruption.get(name, UNKNOWN))
            rows.append([escape_markdown(name), group, *shown, *([mean] if several else [])])
    return table(head, rows, left=2)


def _differences(results: Results, model: ModelResults, files: CellFiles) -> str:
    head = ['corruption', *map(str, results.severities)]
    rows, every = [], []
    for name in results.corruptions:
        row = []
        for severity in results.severities:
            difference = files.difference(model.name, (name, severity))
            shown = format_percent(difference.value, signed=True)
            row.append(f'**{shown}**' if difference.significant_sign else shown)
            every.append(difference)
        rows.append([escape_markdown(name), *row])
    note = WITHOUT_INTERVALS
    if any(difference.low is not None for difference in every):
        note = 'Bold: the 95 % interval of that cell lies on one side of 0.'
    return f'{table(head, rows)}\n\n{note}'


def _severities(results: Results) -> str:
    rows = [
        [
            escape_markdown(model.name),
            escape_markdown(title),
            *_row(results, model, by_model[name]),
        ]
        for name, model in results.models.items()
        for title, by_model in severity_means(results).items()
    ]
    return table(['model', 'under', 'clean', *map(str, results.severities)], rows, left=2)


def _row(results: Results, model: ModelResults, estimates: dict[int, Estimate]) -> list[str]:
    columns = [model.metrics['clean'], *(estimates.get(s, UNKNOWN) for s in results.severities)]
    return [format_estimate(estimate) for estimate in columns]


def _classes(results: Results) -> str:
    models = [model for model in results.models.values() if model.per_class]
    head = ['class']
    for model in models:
        head += [f'{escape_markdown(model.name)} {key}' for key in ('clean', 'mPC')]
    rows = []
    for name in class_names(results):
        found = [model.per_class.get(name) for model in models]
        pairs = [(one.clean, one.mpc) if one else (None, None) for one in found]
        rows.append(
            [escape_markdown(name), *(format_percent(value) for pair in pairs for value in pair)]
        )
    return table(head, rows)


def _worst(results: Results) -> str:
    rows = [
        [
            escape_markdown(model.name),
            escape_markdown(f'{cell.corruption} {cell.severity}'),
            format_estimate(cell.estimate),
            format_percent(-cell.drop, signed=True),
        ]
        for model in results.models.values()
        for cell in find_worst_cells(results, model)
    ]
    head = ['model', 'cell', performance_name(results), 'minus clean']
    return table(head, rows, left=2) if rows else DASH
