# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""report.html: one file that needs no other, and runs no script.

The data of each section is prepared here and in the modules below; the layout is in templates/,
which are written in Jinja2.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .axes import ModelLabel, model_labels, split_name
from .cells import CellFiles
from .charts import cost_charts, difference_charts, severity_charts
from .classes import class_table
from .colours import css_rules
from .examples import ExampleImages
from .notices import notices
from .schema import Results
from .tables import (
    difference_heat_maps,
    heat_maps,
    model_table,
    shifted_set_table,
)
from .text import (
    cost_note,
    interval_caveats,
    plain_text,
    protocol_rows,
    subtitle,
    title,
    units_note,
    verdict,
)
from .worst_cells import worst_cells

TEMPLATES = Path(__file__).parent / 'templates'
SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A second defence besides escaping: if a name slipped through as markup, a browser would still
run and load nothing. Styles are inline, because the page is one file."""


class Section(NamedTuple):
    """A section of the page.

    Attributes:
        key (str): Its id.
        heading (str): Its heading.
        template (str): The template that lays it out.
        data (Any): What the template shows; without any the section is left out.
    """

    key: str
    heading: str
    template: str
    data: Any


def render_page(
    results: Results, files: CellFiles, extra_notes: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """Render the page.

    Args:
        results (Results): What it is about.
        files (CellFiles): The cells.
        extra_notes (Sequence[str]): Notes for the top of the page, before those that are found.

    Returns:
        tuple[str, list[str]]: The HTML, and all notes at its top.

    Raises:
        MalformedResultsError: If the file of a cell is malformed.
    """
    images = ExampleImages(results, files)
    # Before the notes: only when all is prepared it is known which files cannot be read.
    sections = [section for section in _sections(results, files, images) if section.data]
    unreadable = list(images.unreadable.values())
    notes = [*extra_notes, *notices(results, sorted(files.missing), unreadable)]
    html = (
        _environment()
        .get_template('page.html.j2')
        .render(
            title=title(results),
            subtitle=subtitle(results),
            security_policy=SECURITY_POLICY,
            # No part of these rules comes from a file of results.
            colour_rules=Markup(css_rules()),
            notes=notes,
            sections=sections,
        )
    )
    return html, notes


def _sections(results: Results, files: CellFiles, images: ExampleImages) -> list[Section]:
    reference = results.reference
    return [
        Section('models', 'Models', 'models.html.j2', _models(results)),
        Section('shifts', 'Other test sets', 'shifted_sets.html.j2', shifted_set_table(results)),
        Section('cells', 'By corruption and severity', 'heat_maps.html.j2', heat_maps(results)),
        Section(
            'differences',
            f'Difference to {reference}',
            'heat_maps.html.j2',
            difference_heat_maps(results, files),
        ),
        Section('severity', 'Over severity', 'severity.html.j2', severity_charts(results)),
        Section('cost', 'Accuracy and cost', 'cost.html.j2', cost_charts(results)),
        Section('classes', 'Classes', 'classes.html.j2', class_table(results)),
        Section(
            'worst',
            'Worst cells',
            'worst_cells.html.j2',
            worst_cells(results, files, images),
        ),
        Section('protocol', 'Protocol', 'protocol.html.j2', protocol_rows(results)),
    ]


def _models(results: Results) -> dict[str, Any]:
    labels = model_labels(results)
    paragraphs: list[tuple[ModelLabel | None, str]] = [
        (labels[paragraph.model] if paragraph.model else None, paragraph.words)
        for paragraph in verdict(results)
    ]
    return {
        'units_note': units_note(results),
        'cost_note': cost_note(results),
        'reference': results.reference,
        'table': model_table(results),
        'verdict': paragraphs,
        'differences': difference_charts(results),
        'caveats': interval_caveats(results),
    }


@cache
def _environment() -> Environment:
    # Cached, because compiling the templates takes longer than rendering a page.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters['svg_number'] = _svg_number
    environment.filters['pieces'] = split_name
    return environment


def _finalize(value: object) -> object:
    """Return what ``{{ value }}`` writes: every name is made plain before it is escaped."""
    # The output of macros and of other templates is markup already.
    return value if hasattr(value, '__html__') else plain_text(value)


def _svg_number(value: float | str) -> str:
    """Format a number of an SVG attribute: 0.01 pixels are finer than any screen."""
    if isinstance(value, float):
        return f'{value:.2f}'.rstrip('0').rstrip('.')
    return str(value)
