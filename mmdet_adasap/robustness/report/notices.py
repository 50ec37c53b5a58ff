# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a reader must know before the figures: what is missing, left out or of another kind."""

from collections.abc import Sequence

from ..metrics.mpc import ALEXNET, benchmark_corruptions
from .reading import OTHER, Results, Unreadable, group_of
from .words import hundredth, spoken

IMAGENET = 50000
"""Images of ImageNet's validation set."""
NAMED = 5
"""So many images or cells are named; of the rest the number."""


def notices(
    results: Results, gone: Sequence[str] = (), lost: Sequence[Unreadable] = ()
) -> list[str]:
    """One paragraph for each.

    Args:
        results (Results): What the report is about.
        gone (Sequence[str]): Files of cells that are not there.
        lost (Sequence[Unreadable]): Examples whose images cannot be read.
    """
    found = [
        _unfinished(results),
        _partial(results),
        _unreadable(results),
        _other_mean(results),
        _extras(results),
        _without_intervals(results),
        _computed(results),
        _part_of_imagenet(results),
        _at_chance(results),
    ]
    if gone:
        found.append(
            f'Cell files that are missing, or of another run than results.json ({len(gone)}): '
            f'{_some(sorted(gone))}. Their examples and intervals of differences are left out.'
        )
    if lost:
        names = _some([f'{one.image} ({one.error})' for one in lost])
        found.append(f'Example images that cannot be shown ({len(lost)}): {names}.')
    return [one for one in found if one]


def condition(corruption: str, severity: int) -> str:
    """How a report calls a condition, or with severity 0 another test set."""
    return f'{corruption} {severity}' if severity else corruption


def _computed(results: Results) -> str | None:
    if results.errors != ALEXNET or results.protocol['mode'] == 'published':
        return None
    return (
        "mCE divides by AlexNet's errors on the published files of ImageNet-C, and these images "
        'were computed: mCE is approximate.'
    )


def _part_of_imagenet(results: Results) -> str | None:
    if results.errors != ALEXNET or results.images == IMAGENET:
        return None
    labels = results.protocol['dataset'].get('labels')
    classes = f', of {labels} of the 1000 classes' if labels not in (None, 1000) else ''
    return (
        f"mCE divides by AlexNet's errors on all {IMAGENET:,} validation images of ImageNet, and "
        f'these are {results.images:,}{classes}: it does not compare with published ones.'
    )


def _at_chance(results: Results) -> str | None:
    """Mostly of a classifier whose labels are sorted otherwise than those of the test set."""
    if results.protocol['metric'] != 'accuracy/top1' or not results.classes:
        return None
    chance = 1 / len(results.classes)
    guessing = [
        model.name
        for model in results.models.values()
        if (clean := model.figures['clean']).value is not None
        and (clean.value if clean.low is None else clean.low) <= chance
    ]
    if not guessing:
        return None
    return (
        f'On clean images {spoken(guessing)} cannot be told from chance ({hundredth(chance)} % '
        f'with {len(results.classes)} classes): look whether weights, labels and preprocessing '
        f'belong together before you read on.'
    )


def _unfinished(results: Results) -> str | None:
    missing = dict.fromkeys((c, s) for _, c, s in results.missing)
    without_clean = any(m.figures['clean'].value is None for m in results.models.values())
    if results.finished and not missing and not without_clean:
        return None
    total = len(results.corruptions) * len(results.severities) + 1 + len(results.sets)
    there = total - len(missing) - without_clean
    names = [condition(*each) for each in missing]
    if without_clean:
        names.insert(0, 'clean images')
    return (
        f'The run is not finished: {there} of {total} cells are there. Missing: {_some(names)}. '
        f'The same command goes on with it.'
    )


def _partial(results: Results) -> str | None:
    if any(model.over and model.over['partial'] for model in results.models.values()):
        return (
            'mPC, rPC and mCE are partial: means over the cells that are there. They do not '
            'compare with those of a whole run.'
        )
    if any(model.figures['mPC'].value is None for model in results.models.values()):
        return 'There is no mPC, rPC or mCE while cells are missing.'
    return None


def _unreadable(results: Results) -> str | None:
    found = results.unreadable
    if not found:
        return None
    names = _some([f'{one.image} ({one.error})' for one in found])
    one = len(found) == 1
    subject, verb = ('1 image', 'is') if one else (f'{len(found)} images', 'are')
    return f'{subject} could not be read and {verb} in no figure: {names}.'


def _other_mean(results: Results) -> str | None:
    over = next(iter(results.models.values())).over
    if over is None or over['complete']:
        return None
    benchmark = benchmark_corruptions()
    if set(benchmark) <= set(results.corruptions) and len(results.severities) == 5:
        return None  # only cells are missing, which is said
    counted = [name for name in results.corruptions if name in benchmark]
    severities = spoken([str(severity) for severity in results.severities])
    named = spoken(counted) if len(counted) <= NAMED else f'{len(counted)} of them'
    return (
        f'mPC is not that of the whole benchmark of {len(benchmark)} corruptions at 5 severities: '
        f'it is the mean over {named} at {"severities" if len(severities) > 1 else "severity"} '
        f'{severities}.'
    )


def _extras(results: Results) -> str | None:
    extras = [name for name in results.corruptions if group_of(name) == OTHER]
    if not extras:
        return None
    return f'{spoken(extras)} are not of the benchmark and in no mean.'


def _without_intervals(results: Results) -> str | None:
    if any(model.figures['clean'].low is not None for model in results.models.values()):
        return None
    if all(model.figures['mPC'].value is None for model in results.models.values()):
        return None
    return (
        'There are no confidence intervals, so that nothing here says whether a difference is '
        'more than chance.'
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return ', '.join(names[:NAMED]) + (f' and {rest} more' if rest > 0 else '')
