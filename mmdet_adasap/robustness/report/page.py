# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""report.html: one file that needs nothing else, and runs nothing."""

from collections.abc import Sequence
from pathlib import Path

from .cells import CellFiles
from .classes import class_table
from .colours import rules
from .costs import scatters
from .curves import curves
from .heatmaps import difference_maps, maps
from .marks import model_classes, named
from .markup import Markup, element, join
from .notices import notices
from .overview import differences, table
from .pictures import Pictures
from .reading import Results
from .settings import settings
from .shifts import shift_table
from .verdict import caveats, verdict
from .words import metric
from .worst import worst

STYLE = Path(__file__).parent / 'style.css'
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Even if a name slipped through as markup, a browser would run and load nothing."""


def page(
    results: Results, files: CellFiles, notes: Sequence[str] = ()
) -> tuple[Markup, list[str]]:
    """The page, and the notices at its top.

    Args:
        results (Results): What it is about.
        files (CellFiles): The cells.

    Raises:
        MalformedResultsError: If the file of a cell is not right.
    """
    pictures = Pictures(results, files)
    # Drawn first: only then is it known what cannot be read.
    sections = [
        ('models', 'Models', _models(results)),
        ('shifts', 'Other test sets', shift_table(results)),
        ('cells', 'By corruption and severity', maps(results)),
        ('differences', f'Difference to {results.reference}', difference_maps(results, files)),
        ('severity', 'Over severity', curves(results)),
        ('cost', 'Accuracy and cost', scatters(results)),
        ('classes', 'Classes', class_table(results)),
        ('worst', 'Where most is lost', worst(results, files, pictures)),
        ('protocol', 'Protocol', _protocol(results)),
    ]
    sections = [each for each in sections if each[2] is not None]
    said = [*notes, *notices(results, sorted(files.gone), list(pictures.lost.values()))]
    alarms = [element('p', one) for one in said]
    body = element(
        'main',
        element(
            'header',
            element('h1', title(results)),
            element('p', subtitle(results), class_='soft'),
            element('aside', *alarms, class_='alarm', aria_label='What is missing')
            if said
            else None,
            element(
                'nav',
                *(element('a', name, href=f'#{key}') for key, name, _ in sections),
                aria_label='Sections',
            ),
        ),
        *(
            element('section', element('h2', name), content, id=key)
            for key, name, content in sections
        ),
    )
    head = element(
        'head',
        element('meta', charset='utf-8'),
        element('meta', http_equiv='Content-Security-Policy', content=POLICY),
        element('meta', name='viewport', content='width=device-width, initial-scale=1'),
        element('meta', name='color-scheme', content='light dark'),
        element('title', title(results)),
        element('style', Markup(rules() + STYLE.read_text(encoding='utf-8'))),
    )
    document = element('html', head, element('body', body), lang='en')
    return join(Markup('<!DOCTYPE html>\n'), document, Markup('\n')), said


def scale(results: Results) -> str:
    """What the figures are, and in what they are counted."""
    p = metric(results)
    return (
        f'All {p}, mPC and rPC are times 100. mPC is the mean of {p} over corruptions and '
        f'severities, rPC = mPC / clean {p}. mCE, in percent: error under corruption relative to '
        f'{"the reference" if results.errors in results.models else results.errors}, lower is '
        f'better.'
    )


def title(results: Results) -> str:
    """What the report is called."""
    names = list(results.models)
    return f'Robustness of {names[0] if len(names) == 1 else f"{len(names)} models"}'


def subtitle(results: Results) -> str:
    """What was measured, on what."""
    dataset = results.protocol['dataset']
    corruptions, severities = len(results.corruptions), len(results.severities)
    return (
        f'{results.protocol["metric"]} on {dataset["images"]} images of '
        f'{dataset.get("type", "a dataset")}, clean and under {corruptions} '
        f'corruption{"s" * (corruptions != 1)} at {severities} '
        f'severit{"ies" if severities != 1 else "y"}'
    )


def _models(results: Results) -> Markup:
    kinds = model_classes(results)
    sentences = [
        element('p', model and element('strong', named(kinds[model], model)), f' {words}')
        for words, model in verdict(results)
    ]
    limits = caveats(results)
    return join(
        element('p', scale(results), class_='note'),
        table(results),
        element('div', *sentences, class_='verdict'),
        differences(results),
        element('p', limits, class_='note') if limits else None,
    )


def _protocol(results: Results) -> Markup:
    pairs = settings(results)
    return element(
        'dl', *(element('div', element('dt', name), element('dd', value)) for name, value in pairs)
    )
