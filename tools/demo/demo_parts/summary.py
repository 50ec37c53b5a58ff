# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What several seeds of the classification demo say together: means, spreads, differences."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

DENSE = 'dense'
ARMS = ('SGD', 'SAM', 'AdaSAP')
TARGETS = (0.5, 0.25)
# As results.json of tools/robustness.py calls them, and as it is called for classifiers.
FIGURES = {'clean': 'clean', 'mPC': 'corrupted', 'rPC': 'R_C'}


def model_name(arm: str, target: float) -> str:
    return f'{arm}-{target}'


def model_names() -> list[str]:
    return [DENSE, *(model_name(arm, target) for target in TARGETS for arm in ARMS)]


def spread(values: Sequence[float | None]) -> dict:
    """The mean and the standard deviation of a sample, which one value does not have.

    R_C of a model without a right answer on clean images is None, and so is what is made of it.
    """
    if None in values:
        return {'mean': None, 'std': None, 'values': list(values)}
    std = stdev(values) if len(values) > 1 else None
    return {'mean': fmean(values), 'std': std, 'values': list(values)}


def summarize(
    found: Mapping[int, Mapping], train_seconds: Mapping[int, Mapping[str, float]]
) -> dict:
    """Put the results of all seeds together.

    Args:
        found (Mapping[int, Mapping]): What tools/robustness.py found, by seed.
        train_seconds (Mapping[int, Mapping[str, float]]): What training each model took, by seed.

    Returns:
        dict: 'seeds'; 'models', for each its spread of 'params', 'clean' (top-1), 'corrupted'
        (mean top-1 under the corruptions), 'R_C' and 'train_seconds'; 'differences', for each
        pruned size AdaSAP minus another arm of the same seed. Accuracies are fractions.
    """
    seeds = list(found)
    models = {}
    for name in model_names():
        rows = [found[seed]['models'][name] for seed in seeds]
        models[name] = {
            'params': spread([row['cost']['params'] for row in rows]),
            **{to: spread([row[key] for row in rows]) for key, to in FIGURES.items()},
            'train_seconds': spread([train_seconds[seed][name] for seed in seeds]),
        }
    return {'seeds': seeds, 'models': models, 'differences': differences(models)}


def differences(models: Mapping[str, Mapping]) -> dict[str, dict]:
    """AdaSAP minus the other arms at the same size, paired by seed."""
    found = {}
    for target in TARGETS:
        ours = models[model_name('AdaSAP', target)]
        for arm in ARMS[:-1]:
            theirs = models[model_name(arm, target)]
            found[f'{model_name("AdaSAP", target)} - {model_name(arm, target)}'] = {
                figure: spread(_minus(ours[figure]['values'], theirs[figure]['values']))
                for figure in FIGURES.values()
            }
    return found


def _minus(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float | None]:
    pairs = zip(ours, theirs, strict=True)
    return [None if None in pair else pair[0] - pair[1] for pair in pairs]
