# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Notes at the top of a report: what is missing, left out, or not comparable."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..corruptions import BENCHMARK, SEVERITIES
from ..metrics import ALEXNET
from .schema import Results, UnreadableImage
from .text import count_of, format_percent, join_names, performance_name

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
        # All models of a run were tested on the same cells.
        mean_note(
            results.corruptions, results.severities, results.models[results.reference].mean_over
        ),
        _without_ratio(results),
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


def mean_note(
    corruptions: Sequence[str], severities: Sequence[int], over: Mapping[str, Any] | None
) -> str | None:
    """Return what mPC, rPC and mCE are over; None if they are over all that was tested.

    Args:
        corruptions (Sequence[str]): Those tested.
        severities (Sequence[int]): The same.
        over (Mapping, optional): What mPC is over, as results.json has it; None without an mPC.
    """
    counted = [name for name in corruptions if name in BENCHMARK]
    extras = [name for name in corruptions if name not in BENCHMARK]
    if not counted:
        return (
            f'There is no mPC, rPC or mCE: they are over corruptions of the benchmark, and '
            f'{join_names(extras)} {"is" if len(extras) == 1 else "are"} not of it.'
        )
    whole = len(counted) == len(BENCHMARK) and len(severities) == len(SEVERITIES)
    parts = []
    # If only cells are missing, another note says so.
    if over is not None and not over['complete'] and not whole:
        counted = [name for name in counted if name in over['corruptions']]
        names = join_names(counted) if len(counted) <= MAX_NAMED else f'{len(counted)} of them'
        parts.append(
            f'mPC is not that of the whole benchmark of {len(BENCHMARK)} corruptions at '
            f'{len(SEVERITIES)} severities: it is the mean over {names} at '
            f'{"severity" if len(severities) == 1 else "severities"} '
            f'{join_names([str(each) for each in severities])}.'
        )
    if extras:
        verb = 'is' if len(extras) == 1 else 'are'
        parts.append(
            f'{join_names(extras)} {verb} not of the benchmark, and in no mPC, rPC or mCE.'
        )
    return ' '.join(parts) or None


def _computed_imagenet_c(results: Results) -> str | None:
    if not _refers_to_alexnet(results) or results.protocol['mode'] == 'published':
        return None
    return (
        "mCE divides by AlexNet's errors on the published files of ImageNet-C, and these images "
        'were computed: mCE is approximate.'
    )


def _refers_to_alexnet(results: Results) -> bool:
    there = any(model.mce is not None for model in results.models.values())
    return there and results.mce_reference == ALEXNET


def _part_of_imagenet(results: Results) -> str | None:
    if not _refers_to_alexnet(results) or results.image_count == IMAGENET_IMAGES:
        return None
    # Fewer classes among the images than the model can name: it is tested on a part of ImageNet.
    labels = results.protocol['dataset'].get('labels')
    classes = ''
    if labels not in (None, IMAGENET_CLASSES):
        classes = f', of {labels} of the {IMAGENET_CLASSES} classes'
    verb = 'is' if results.image_count == 1 else 'are'
    return (
        f"mCE divides by AlexNet's errors on all {IMAGENET_IMAGES:,} validation images of "
        f'ImageNet, and here {verb} {results.image_count:,}{classes}: it does not compare with '
        f'published ones.'
    )


def _at_chance(results: Results) -> str | None:
    """Name models at chance: their labels are mostly sorted unlike those of the test set."""
    # Of a single class every guess is right.
    if results.protocol['metric'] != 'accuracy/top1' or len(results.classes) < 2:
        return None
    # Accuracy of a uniform guess, whatever the number of images of each class.
    chance = 1 / len(results.classes)
    clean = {name: model.metrics['clean'] for name, model in results.models.items()}
    known = {name: one for name, one in clean.items() if one.value is not None}
    # The ends: only a model that is above chance beyond doubt goes without a note.
    below = [
        name
        for name, one in known.items()
        if (one.value if one.high is None else one.high) < chance
    ]
    at_chance = [
        name
        for name, one in known.items()
        if name not in below and (one.value if one.low is None else one.low) <= chance
    ]
    kinds = ((at_chance, 'cannot be told from chance'), (below, 'did worse than chance'))
    found = [f'{join_names(names)} {words}' for names, words in kinds if names]
    if not found:
        return None
    return (
        f'On clean images {join_names(found)} ({format_percent(chance)} % with '
        f'{len(results.classes)} classes): look whether weights, labels and preprocessing belong '
        f'together before you read on.'
    )


def _unfinished(results: Results) -> str | None:
    # Once for all models: one condition is one file of a cell.
    lacking: dict[str, list[str]] = {}
    for model in results.models.values():
        if model.metrics['clean'].value is None:
            lacking.setdefault('clean images', []).append(model.name)
    for model, corruption, severity in results.missing:
        # Another test set has severity 0.
        condition = f'{corruption} {severity}' if severity else corruption
        lacking.setdefault(condition, []).append(model)
    if results.finished and not lacking:
        return None
    # 1 is the cell of clean images.
    total = len(results.corruptions) * len(results.severities) + 1 + len(results.shifted_sets)
    names = [
        name if len(models) == len(results.models) else f'{name} of {join_names(models)}'
        for name, models in lacking.items()
    ]
    missing = f' Missing: {_first_few(names)}.' if names else ''
    whole = '' if len(results.models) == 1 else ' for every model'
    if all(len(models) == len(results.models) for models in lacking.values()):
        whole = ''
    return (
        f'The run is not finished: {total - len(lacking)} of {count_of(total, "cell")} are there'
        f'{whole}.{missing} The same command goes on with it.'
    )


def _partial(results: Results) -> str | None:
    models = results.models.values()
    partial = [model.name for model in models if model.mean_over and model.mean_over['partial']]
    if partial:
        whose = '' if len(partial) == len(models) else f' of {join_names(partial)}'
        return (
            f'mPC, rPC and mCE{whose} are partial: means over the cells that are there. They do '
            f'not compare with those of a whole run.'
        )
    without = [model.name for model in models if model.metrics['mPC'].value is None]
    # Of corruptions beyond the benchmark there is none in a whole run either.
    if not without or not results.counted_corruptions:
        return None
    whose = '' if len(without) == len(models) else f' of {join_names(without)}'
    return f'There is no mPC, rPC or mCE{whose} while cells are missing.'


def _without_ratio(results: Results) -> str | None:
    """Name models that have an mPC and no rPC, which divides by clean P."""
    names = [
        model.name
        for model in results.models.values()
        if model.metrics['clean'].value == 0 and model.metrics['mPC'].value is not None
    ]
    if not names:
        return None
    return f'Of {join_names(names)} there is no rPC: clean {performance_name(results)} is 0.'


def _unreadable(results: Results) -> str | None:
    found = results.unreadable
    if not found:
        return None
    names = _first_few([f'{one.image} ({one.error})' for one in found])
    one = len(found) == 1
    verb, pronoun = ('is', 'it') if one else ('are', 'they')
    # Published corrupted images are a file for each condition, of which one may be broken.
    return (
        f'{count_of(len(found), "image")} could not be read, and {verb} left out of every cell '
        f'where {pronoun} could not: {names}.'
    )


def _without_intervals(results: Results) -> str | None:
    models = results.models.values()
    if any(model.metrics['clean'].low is not None for model in models):
        return None
    # While cells are missing there are no intervals yet, except of partial means.
    partial = any(model.mean_over and model.mean_over['partial'] for model in models)
    if results.missing and not partial:
        return None
    return (
        'There are no confidence intervals, so that nothing here says whether a difference is '
        'more than chance.'
    )


def _first_few(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ', '.join(names[:MAX_NAMED]) + (f' and {rest} more' if rest > 0 else '')
