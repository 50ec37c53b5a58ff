# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""report.md: the same figures as tables that GitHub renders."""

import re
from collections.abc import Iterable, Sequence

from .cells import CellFiles
from .classes import class_names
from .curves import group_means
from .markup import plain
from .overview import quantity_of_parameters
from .page import scale, subtitle, title
from .reading import COMPARED, Figure, Model, Results
from .settings import settings
from .shifts import shift_columns, shift_figures
from .verdict import caveats, verdict
from .words import NONE, decimal, hundredth, metric, names, quantity, with_ends
from .worst import worst_cells

SPECIAL = re.compile(r'([\\`*\[\]|~$#]|(?<!\w)_|_(?!\w)|:(?=//))')
ENTITIES = {'<': '&lt;', '>': '&gt;', '&': '&amp;', '@': '&#64;'}


def markdown(results: Results, files: CellFiles, said: Sequence[str]) -> str:
    """The report as Markdown.

    Args:
        results (Results): What it is about.
        files (CellFiles): The cells.
        said (Sequence[str]): What is to stand at the top.
    """
    parts = [f'# {escaped(title(results))}', escaped(subtitle(results))]
    parts += [f'> **Note:** {escaped(one)}' for one in said]
    parts += [escaped(scale(results)), _models(results), _verdict(results)]
    if results.sets:
        parts += ['## Other test sets', _shifts(results)]
    parts += ['## By corruption and severity']
    for model in results.models.values():
        parts += [f'### {escaped(model.name)}', _cells(results, model)]
    for model in results.others:
        heading = f'### {escaped(model.name)} minus {escaped(results.reference)}'
        parts += [heading, _differences(results, model, files)]
    parts += ['## Over severity', _severities(results)]
    if class_names(results):
        parts += ['## Classes', _classes(results)]
    parts += ['## Where most is lost', _worst(results)]
    pairs = ((escaped(name), escaped(value)) for name, value in settings(results))
    parts += ['## Protocol', table(('setting', 'value'), pairs, left=2)]
    return '\n\n'.join(parts) + '\n'


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, on one line and in a table as well."""
    shown = SPECIAL.sub(r'\\\1', plain(text))
    return ''.join(ENTITIES.get(character, character) for character in shown)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; the first ``left`` columns are aligned left, the others right."""
    rule = ['---' if i < left else '---:' for i in range(len(head))]
    return '\n'.join(f'| {" | ".join(row)} |' for row in (head, rule, *rows))


def _models(results: Results) -> str:
    called = names(results)
    head = ['model', *called.values(), 'mCE', 'parameters', 'GFLOPs', 'ms an image']
    reference = escaped(results.reference)
    if results.others:
        head += [f'{called[key]} minus {reference}' for key in COMPARED]
    rows = []
    for model in results.models.values():
        row = [escaped(model.name), *(with_ends(model.figures[key]) for key in COMPARED)]
        flops = model.cost.flops
        row += [decimal(model.mce), quantity_of_parameters(model.cost.params)]
        row += [quantity(None if flops is None else flops / 1e9), quantity(model.cost.latency_ms)]
        if results.others:
            row += [with_ends(model.difference.get(key, Figure(None)), True) for key in COMPARED]
        rows.append(row)
    return table(head, rows)


def _verdict(results: Results) -> str:
    paragraphs = [
        f'**{escaped(model)}** {escaped(words)}' if model else escaped(words)
        for words, model in verdict(results)
    ]
    limits = caveats(results)
    return '\n\n'.join([*paragraphs, *([escaped(limits)] if limits else [])])


def _shifts(results: Results) -> str:
    head = ['model', *shift_columns(results)]
    rows = [
        [
            escaped(model.name),
            *(with_ends(figure, minus) for figure, minus in shift_figures(results, model)),
        ]
        for model in results.models.values()
    ]
    return table([escaped(each) for each in head], rows)


def _cells(results: Results, model: Model) -> str:
    several = len(results.severities) > 1
    head = ['corruption', 'group', *map(str, results.severities), *(['mean'] if several else [])]
    rows = []
    for group, corruptions in results.groups.items():
        for name in corruptions:
            row = model.cells.get(name, {})
            shown = [
                hundredth(row[s].value) if s in row else 'missing' for s in results.severities
            ]
            mean = with_ends(model.per_corruption.get(name, Figure(None)))
            rows.append([escaped(name), group, *shown, *([mean] if several else [])])
    return table(head, rows, left=2)


def _differences(results: Results, model: Model, files: CellFiles) -> str:
    head = ['corruption', *map(str, results.severities)]
    rows = []
    for name in results.corruptions:
        row = []
        for severity in results.severities:
            figure = files.difference(model.name, (name, severity))
            shown = hundredth(figure.value, signed=True)
            row.append(f'**{shown}**' if figure.sure else shown)
        rows.append([escaped(name), *row])
    note = 'Bold: the 95 % interval of that cell lies on one side of 0.'
    return f'{table(head, rows)}\n\n{note}'


def _severities(results: Results) -> str:
    rows = []
    for model in results.models.values():
        rows.append([escaped(model.name), 'all', *_row(results, model, model.per_severity)])
        for group, corruptions in results.groups.items():
            means = group_means(model, corruptions, results.severities)
            rows.append([escaped(model.name), group, *_row(results, model, means)])
    return table(['model', 'group', 'clean', *map(str, results.severities)], rows, left=2)


def _row(results: Results, model: Model, figures: dict[int, Figure]) -> list[str]:
    columns = [model.figures['clean'], *(figures.get(s, Figure(None)) for s in results.severities)]
    return [with_ends(figure) for figure in columns]


def _classes(results: Results) -> str:
    models = [model for model in results.models.values() if model.per_class]
    head = ['class']
    for model in models:
        head += [f'{escaped(model.name)} {key}' for key in ('clean', 'mPC')]
    rows = []
    for name in class_names(results):
        found = [model.per_class.get(name) for model in models]
        pairs = [(one.clean, one.mpc) if one else (None, None) for one in found]
        rows.append([escaped(name), *(hundredth(value) for pair in pairs for value in pair)])
    return table(head, rows)


def _worst(results: Results) -> str:
    rows = [
        [
            escaped(model.name),
            escaped(f'{cell.corruption} {cell.severity}'),
            with_ends(cell.figure),
            hundredth(cell.drop),
        ]
        for model in results.models.values()
        for cell in worst_cells(results, model)
    ]
    head = ['model', 'cell', metric(results), 'less than clean']
    return table(head, rows, left=2) if rows else NONE
