# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The tables that the classification demo ends with, in percent."""

from collections.abc import Mapping

from .markdown import markdown_table
from .summary import FIGURES

HEADERS = {'clean': 'clean top-1, %', 'corrupted': 'mean corrupted top-1, %', 'R_C': 'R_C, %'}


def format_summary(results: Mapping) -> str:
    """Lay out all models, and AdaSAP minus the others, as two Markdown tables.

    Args:
        results (Mapping): As the demo's results.json has them.
    """
    seeds = ', '.join(map(str, results['seeds']))
    severities = ', '.join(map(str, results['severities']))
    several = len(results['seeds']) > 1
    return '\n'.join(
        [
            f'{"Mean ± standard deviation, seeds" if several else "Seed"} {seeds}; '
            f'{len(results["corruptions"])} corruptions, severity {severities}',
            '',
            _models(results['models']),
            '',
            f'AdaSAP minus the others, in points{", seed by seed in brackets" if several else ""}',
            '',
            _differences(results['differences']),
        ]
    )


def _models(models: Mapping[str, Mapping]) -> str:
    lines = [['', 'parameters', *HEADERS.values()]]
    for name, model in models.items():
        figures = [_spread(model[figure]) for figure in FIGURES.values()]
        lines.append([name, f'{model["params"]["mean"]:,.0f}', *figures])
    return markdown_table(lines)


def _differences(differences: Mapping[str, Mapping]) -> str:
    lines = [['', *FIGURES.values()]]
    for name, difference in differences.items():
        lines.append([name, *(_difference(difference[f]) for f in FIGURES.values())])
    return markdown_table(lines)


def _spread(of: Mapping) -> str:
    if of['mean'] is None:
        return '-'
    text = f'{100 * of["mean"]:.1f}'
    return text if of['std'] is None else f'{text} ± {100 * of["std"]:.1f}'


def _difference(of: Mapping) -> str:
    if of['mean'] is None:
        return '-'
    text = f'{100 * of["mean"]:+.1f}'
    if of['std'] is None:
        return text
    each = ', '.join(f'{100 * value:+.1f}' for value in of['values'])
    return f'{text} ± {100 * of["std"]:.1f} ({each})'
