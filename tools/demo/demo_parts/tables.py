# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The figures that the demos end with, as Markdown tables that read well on a terminal, too."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

DENSE = 'dense'
ARMS = ('SGD', 'SAM', 'AdaSAP')
# Shares of the dense parameters that the classification demo prunes to.
TARGETS = (0.5, 0.25)
# Key in results.json of tools/robustness.py -> name of the figure for classifiers.
FIGURES = {'clean': 'clean', 'mPC': 'corrupted', 'rPC': 'R_C'}
HEADERS = {'clean': 'clean top-1, %', 'corrupted': 'mean corrupted top-1, %', 'R_C': 'R_C, %'}

NETWORK_TIME = 'network in onnxruntime'
"""Row of the network's time as a share of the dense one's, where onnxruntime is installed."""


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out cells: the first column to the left, the others to the right.

    Args:
        rows (Sequence[Sequence[str]]): The cells, row by row; the first row is the header.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(f'| {" | ".join([first.ljust(widths[0]), *cells])} |')
    # A colon at the end of the dashes is Markdown's mark for "to the right".
    dashes = ['-' * (widths[0] + 2), *('-' * (width + 1) + ':' for width in widths[1:])]
    return '\n'.join([lines[0], f'|{"|".join(dashes)}|', *lines[1:]])


def format_detection_table(
    models: Mapping[str, Mapping], corruptions: Sequence[str], severity: int
) -> str:
    """Lay out the results of the detection demo, one column for each model.

    Args:
        models (Mapping[str, Mapping]): The results by the model's name, as in results.json.
        corruptions (Sequence[str]): The corruptions, in order.
        severity (int): Their severity.
    """
    has_times = all('network_time' in model for model in models.values())
    rows = {
        'parameters': lambda m: f'{m["params"]:,}',
        'GFLOPs': lambda m: f'{m["flops"] / 1e9:.4f}',
        'latency, ms': lambda m: f'{m["latency_ms"]:.1f}',
        **({NETWORK_TIME: lambda m: f'{m["network_time"]:.3f}'} if has_times else {}),
        'training time, s': lambda m: f'{m["train_seconds"]:.0f}',
        'mAP': lambda m: f'{m["mAP"]:.3f}',
        **{
            # name=name: a lambda would otherwise see the last name of the loop.
            f'mAP, {name} {severity}': lambda m, name=name: f'{m["corrupted"][name][severity]:.3f}'
            for name in corruptions
        },
        'mPC': lambda m: f'{m["mPC"]:.3f}',
        'rPC': lambda m: f'{m["rPC"]:.3f}',
    }
    return markdown_table(
        [
            ['', *models],
            *[[label, *map(cell, models.values())] for label, cell in rows.items()],
        ]
    )


def model_name(arm: str, target: float) -> str:
    """Return the name of a pruned classifier."""
    return f'{arm}-{target}'


def model_names() -> list[str]:
    """Return the names of all models of the classification demo, the dense one first."""
    return [DENSE, *(model_name(arm, target) for target in TARGETS for arm in ARMS)]


def summarize(
    found: Mapping[int, Mapping], train_seconds: Mapping[int, Mapping[str, float]]
) -> dict:
    """Join the results of all seeds of the classification demo.

    Args:
        found (Mapping[int, Mapping]): results.json of tools/robustness.py, by seed.
        train_seconds (Mapping[int, Mapping[str, float]]): Training time of each model, by seed.

    Returns:
        dict: 'seeds'; 'models', for each the mean, 'std' and values of 'params', 'clean' (top-1),
        'corrupted' (mean top-1 under the corruptions), 'R_C' and 'train_seconds'; 'differences',
        for each pruned size AdaSAP minus another arm of the same seed. Accuracies are fractions.
    """
    seeds = list(found)
    models = {}
    for name in model_names():
        rows = [found[seed]['models'][name] for seed in seeds]
        models[name] = {
            'params': _mean_and_std([row['cost']['params'] for row in rows]),
            **{to: _mean_and_std([row[key] for row in rows]) for key, to in FIGURES.items()},
            'train_seconds': _mean_and_std([train_seconds[seed][name] for seed in seeds]),
        }
    return {'seeds': seeds, 'models': models, 'differences': _paired_differences(models)}


def _mean_and_std(values: Sequence[float | None]) -> dict:
    """Return mean, standard deviation of the sample, and values; one value has no deviation.

    R_C of a model without a right answer on clean images is None, and so are its mean and 'std'.
    """
    if None in values:
        return {'mean': None, 'std': None, 'values': list(values)}
    std = stdev(values) if len(values) > 1 else None
    return {'mean': fmean(values), 'std': std, 'values': list(values)}


def _paired_differences(models: Mapping[str, Mapping]) -> dict[str, dict]:
    """Return AdaSAP minus the other arms at the same size.

    They are paired by seed, so that what a seed does to all arms is not in them.
    """
    found = {}
    for target in TARGETS:
        ours = models[model_name('AdaSAP', target)]
        for arm in ARMS[:-1]:
            theirs = models[model_name(arm, target)]
            found[f'{model_name("AdaSAP", target)} - {model_name(arm, target)}'] = {
                figure: _mean_and_std(_minus(ours[figure]['values'], theirs[figure]['values']))
                for figure in FIGURES.values()
            }
    return found


def _minus(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float | None]:
    pairs = zip(ours, theirs, strict=True)
    return [None if None in pair else pair[0] - pair[1] for pair in pairs]


def format_summary(results: Mapping) -> str:
    """Lay out two tables in percent: all models, and AdaSAP minus the other arms.

    Args:
        results (Mapping): As the classification demo's results.json has them.
    """
    seeds = ', '.join(map(str, results['seeds']))
    severities = ', '.join(map(str, results['severities']))
    several = len(results['seeds']) > 1
    return '\n'.join(
        [
            f'{"Mean ± standard deviation, seeds" if several else "Seed"} {seeds}; '
            f'{len(results["corruptions"])} corruptions, severity {severities}',
            '',
            _format_models(results['models']),
            '',
            f'AdaSAP minus the others, in points{", seed by seed in brackets" if several else ""}',
            '',
            _format_differences(results['differences']),
        ]
    )


def _format_models(models: Mapping[str, Mapping]) -> str:
    rows = [['', 'parameters', *HEADERS.values()]]
    for name, model in models.items():
        figures = [_format_mean(model[figure]) for figure in FIGURES.values()]
        rows.append([name, f'{model["params"]["mean"]:,.0f}', *figures])
    return markdown_table(rows)


def _format_differences(differences: Mapping[str, Mapping]) -> str:
    rows = [['', *FIGURES.values()]]
    for name, difference in differences.items():
        rows.append([name, *(_format_difference(difference[f]) for f in FIGURES.values())])
    return markdown_table(rows)


def _format_mean(of: Mapping) -> str:
    if of['mean'] is None:
        return '-'
    text = f'{100 * of["mean"]:.1f}'
    return text if of['std'] is None else f'{text} ± {100 * of["std"]:.1f}'


def _format_difference(of: Mapping) -> str:
    if of['mean'] is None:
        return '-'
    text = f'{100 * of["mean"]:+.1f}'
    if of['std'] is None:
        return text
    # Three seeds are few: the single values show more than their deviation.
    each = ', '.join(f'{100 * value:+.1f}' for value in of['values'])
    return f'{text} ± {100 * of["std"]:.1f} ({each})'
