# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Notes at the top of a report: what is missing, left out, or not comparable."""

from collections.abc import Sequence

from ..corruptions import BENCHMARK, SEVERITIES
from ..metrics import ALEXNET
from .schema import OTHER_GROUP, Results, UnreadableImage, group_of
from .text import format_percent, join_names

IMAGENET_IMAGES = 50000
"""Number of images of ImageNet's validation set."""
IMAGENET_CLASSES = 1000
MAX_NAMED = 5
"""At most so many images or cells are named; of the rest the number is given."""


def notices(
    results: Results,
    missing_files: Sequence[str] = (),
    unreadable_examples: Sequence[UnreadableImage] = (),
) -> list[str]:
    """Return the notes of a report, one paragraph each.

    Args:
        results (Results): What the report is about.
        missing_files (Sequence[str]): Files of cells that are missing.
        unreadable_examples (Sequence[UnreadableImage]): Examples whose images cannot be read.

    Returns:
        list[str]: Empty if a reader need know nothing beforehand.
    """
    notes = [
        _unfinished(results),
        _partial(results),
        _unreadable(results),
        _other_mean(results),
        _extra_corruptions(results),
        _without_intervals(results),
        _computed_imagenet_c(results),
        _part_of_imagenet(results),
        _at_chance(results),
    ]
    if missing_files:
        notes.append(
            f'Cell files that are missing, or of another run than results.json '
            f'({len(missing_files)}): {_first_few(sorted(missing_files))}. Their examples and '
            f'intervals of differences are left out.'
        )
    if unreadable_examples:
        names = _first_few([f'{one.image} ({one.error})' for one in unreadable_examples])
        notes.append(f'Example images that cannot be shown ({len(unreadable_examples)}): {names}.')
    return [note for note in notes if note]


def _condition(corruption: str, severity: int) -> str:
    """Return the name of a condition; with severity 0 it is another test set."""
    return f'{corruption} {severity}' if severity else corruption


def _computed_imagenet_c(results: Results) -> str | None:
    if results.mce_reference != ALEXNET or results.protocol['mode'] == 'published':
        return None
    return (
        "mCE divides by AlexNet's errors on the published files of ImageNet-C, and these images "
        'were computed: mCE is approximate.'
    )


def _part_of_imagenet(results: Results) -> str | None:
    if results.mce_reference != ALEXNET or results.image_count == IMAGENET_IMAGES:
        return None
    # Fewer classes among the images than the model can name: it is tested on a part of ImageNet.
    labels = results.protocol['dataset'].get('labels')
    classes = ''
    if labels not in (None, IMAGENET_CLASSES):
        classes = f', of {labels} of the {IMAGENET_CLASSES} classes'
    return (
        f"mCE divides by AlexNet's errors on all {IMAGENET_IMAGES:,} validation images of "
        f'ImageNet, and these are {results.image_count:,}{classes}: it does not compare with '
        f'published ones.'
    )


def _at_chance(results: Results) -> str | None:
    """Name models at chance: their labels are mostly sorted unlike those of the test set."""
    if results.protocol['metric'] != 'accuracy/top1' or not results.classes:
        return None
    # Accuracy of a uniform guess, whatever the number of images of each class.
    chance = 1 / len(results.classes)
    at_chance = [
        model.name
        for model in results.models.values()
        if (clean := model.metrics['clean']).value is not None
        # The lower end: only a model that is above chance beyond doubt goes without a note.
        and (clean.value if clean.low is None else clean.low) <= chance
    ]
    if not at_chance:
        return None
    return (
        f'On clean images {join_names(at_chance)} cannot be told from chance '
        f'({format_percent(chance)} % with {len(results.classes)} classes): look whether weights, '
        f'labels and preprocessing belong together before you read on.'
    )


def _unfinished(results: Results) -> str | None:
    # Once for all models: one condition is one file of a cell.
    missing = dict.fromkeys((c, s) for _, c, s in results.missing)
    without_clean = any(m.metrics['clean'].value is None for m in results.models.values())
    if results.finished and not missing and not without_clean:
        return None
    # 1 is the cell of clean images.
    total = len(results.corruptions) * len(results.severities) + 1 + len(results.shifted_sets)
    there = total - len(missing) - without_clean
    names = [_condition(*each) for each in missing]
    if without_clean:
        names.insert(0, 'clean images')
    return (
        f'The run is not finished: {there} of {total} cells are there. Missing: '
        f'{_first_few(names)}. The same command goes on with it.'
    )


def _partial(results: Results) -> str | None:
    if any(model.mean_over and model.mean_over['partial'] for model in results.models.values()):
        return (
            'mPC, rPC and mCE are partial: means over the cells that are there. They do not '
            'compare with those of a whole run.'
        )
    if any(model.metrics['mPC'].value is None for model in results.models.values()):
        return 'There is no mPC, rPC or mCE while cells are missing.'
    return None


def _unreadable(results: Results) -> str | None:
    found = results.unreadable
    if not found:
        return None
    names = _first_few([f'{one.image} ({one.error})' for one in found])
    one = len(found) == 1
    subject, verb = ('1 image', 'is') if one else (f'{len(found)} images', 'are')
    return f'{subject} could not be read and {verb} in no figure: {names}.'


def _other_mean(results: Results) -> str | None:
    # All models of a run were tested on the same cells.
    mean_over = next(iter(results.models.values())).mean_over
    if mean_over is None or mean_over['complete']:
        return None
    whole = set(BENCHMARK) <= set(results.corruptions)
    if whole and len(results.severities) == len(SEVERITIES):
        return None  # only cells are missing, and the first note says so
    counted = [name for name in results.corruptions if name in BENCHMARK]
    severities = join_names([str(each) for each in results.severities])
    named = join_names(counted) if len(counted) <= MAX_NAMED else f'{len(counted)} of them'
    severity = 'severities' if len(severities) > 1 else 'severity'
    return (
        f'mPC is not that of the whole benchmark of {len(BENCHMARK)} corruptions at '
        f'{len(SEVERITIES)} severities: it is the mean over {named} at {severity} '
        f'{severities}.'
    )


def _extra_corruptions(results: Results) -> str | None:
    extras = [name for name in results.corruptions if group_of(name) == OTHER_GROUP]
    if not extras:
        return None
    return f'{join_names(extras)} are not of the benchmark and in no mean.'


def _without_intervals(results: Results) -> str | None:
    if any(model.metrics['clean'].low is not None for model in results.models.values()):
        return None
    # While cells are missing there are no intervals either, and another note says so.
    if all(model.metrics['mPC'].value is None for model in results.models.values()):
        return None
    return (
        'There are no confidence intervals, so that nothing here says whether a difference is '
        'more than chance.'
    )


def _first_few(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ', '.join(names[:MAX_NAMED]) + (f' and {rest} more' if rest > 0 else '')
