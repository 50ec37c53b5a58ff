# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A run over all conditions, and the results that it writes after each."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.dist import get_dist_info

from ..errors import LoadingFailedError, ModelFailedError, UnreadableImagesError
from ..integration import broadcast_from_rank_0, raise_on_all_ranks
from .datasets import CLEAN, UNREADABLE_ERRORS, Condition
from .engine import ConditionResult, EvaluatedModel, evaluate_conditions
from .evaluation_settings import EvaluationSettings
from .metrics import ALEXNET, alexnet, distinct_names, image_weights, seed_of_set
from .models import ModelSource, measure_costs
from .results import build_models, cell_to_dict
from .shifted_sets import build_shifts
from .store import ResultsFolder
from .test_set import TestSet, choose_subset

EXAMPLES = 6
"""Number of images whose detections and pictures are kept for a report: what fits side by side."""
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
"""Options of the pictures. 0x111111 is 4:4:4: colours keep the full resolution, since pictures may
have 32 pixels a side."""


class Progress(NamedTuple):
    """Functions that a run calls on the way.

    Attributes:
        start (Callable): Called with the number of images of all conditions in this process, and
            of those that were tested before.
        images (Callable): Called with a number of images that were tested.
        say (Callable): Called with a line of text.
    """

    start: Callable[[int, int], object] = lambda total, done: None
    images: Callable[[int], object] = lambda count: None
    say: Callable[[str], object] = lambda line: None


class Run:
    """A run over all conditions.

    Args:
        sources (Sequence[ModelSource]): Names and files of the models.
        models (Sequence[EvaluatedModel]): The models, in this order.
        test_set (TestSet): The test set.
        shifted_sets (Mapping[Condition, TestSet]): Other test sets.
        settings (EvaluationSettings): The settings.
        protocol (dict): What the figures depend on.
        progress (Progress): Functions to call on the way.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        models: Sequence[EvaluatedModel],
        test_set: TestSet,
        shifted_sets: Mapping[Condition, TestSet],
        settings: EvaluationSettings,
        protocol: dict,
        progress: Progress,
    ) -> None:
        self.sources, self.models = sources, models
        self.test_set, self.shifted_sets = test_set, shifted_sets
        self.settings, self.protocol, self.progress = settings, protocol, progress
        self.conditions = settings.conditions
        self.rank, self.processes = get_dist_info()
        self.folder: ResultsFolder | None = None
        self.reference = settings.reference or sources[0].name
        self.mce_reference = self.reference
        if settings.reference is None and _is_imagenet_top1(models[0], test_set):
            self.mce_reference = ALEXNET
        # Once: results.json is written after every condition, and this reads all ids.
        self.examples = self._choose_examples()

    def run(self, out: str | Path) -> dict | None:
        """Test the conditions that are not in the folder yet.

        Args:
            out (str | Path): The folder.

        Returns:
            dict | None: The content of results.json on rank 0, None in other processes.

        Raises:
            UnreadableImagesError: If images could not be read.
        """
        every = [*self.conditions, *self.shifted_sets]
        left = []
        # Rank 0 alone reads and writes the folder. If it fails, the others must not wait for it.
        with raise_on_all_ranks():
            if self.rank == 0:
                left = self._resume(out, every)
        left = broadcast_from_rank_0(left)
        total = self._count(every)
        self.progress.start(total, total - self._count(left))
        self._test(None, [c for c in left if c in self.conditions])
        for condition in self.shifted_sets:
            if condition in left:
                self._test(condition, [condition])
        if self.rank != 0:
            return None
        # Before the error below, which a caller may catch to run again in this process.
        self.folder.close()
        results = self.results()
        self._check_unreadable(results)
        return results

    def _resume(self, out: str | Path, every: Sequence[Condition]) -> list[Condition]:
        """Open the folder, and return the conditions that are left to test."""
        self.folder = ResultsFolder(out, self.protocol)
        self.costs = self._costs()
        left = [condition for condition in every if condition not in self.folder.cells]
        for condition in self.conditions:
            if condition not in left:
                self._add_pictures(condition)
        # A report can be written from here on, and torn results are repaired.
        self.folder.write(self.results())
        if CLEAN not in left:
            self._say_what_is_zero()
        return left

    def _test(self, shifted: Condition | None, conditions: Sequence[Condition]) -> None:
        """Test conditions of the test set, or a shifted set, and write each cell at once."""
        name = None if shifted is None else shifted.corruption
        test_set = self.test_set if shifted is None else self.shifted_sets[shifted]
        seed, resamples = self.settings.seed, self.protocol['bootstrap']['resamples']
        # The images of two sets are independent, so each set has its own resamples.
        seed = seed if name is None else seed_of_set(seed, name)
        weights = image_weights(len(test_set.images), resamples, seed) if resamples else None
        found = evaluate_conditions(
            self.models,
            test_set,
            # A shifted set is tested without corruptions.
            conditions if shifted is None else [CLEAN],
            self.protocol['batch_size'],
            self.settings.workers,
            weights,
            self.examples if shifted is None else [],
            self.progress.images,
        )
        with _errors_named(name):
            for condition, cell in zip(conditions, found, strict=True):
                if cell is not None:
                    self._add(condition, cell)

    def _count(self, conditions: Sequence[Condition]) -> int:
        """Return the number of images of this process under all of these conditions."""
        sets = [self.shifted_sets.get(condition, self.test_set) for condition in conditions]
        return sum(len(test_set.images) // self.processes for test_set in sets)

    def _add(self, condition: Condition, cell: ConditionResult) -> None:
        # That of a shifted set was tested as CLEAN.
        cell.condition = condition
        if condition in self.conditions:
            self._add_pictures(condition)
        self.folder.add(condition, cell_to_dict(cell))
        self.folder.write(self.results())
        if condition == CLEAN:
            self._say_what_is_zero()

    def _say_what_is_zero(self) -> None:
        """Say which models find nothing on clean images: most often a config is not theirs."""
        for name, model in self.folder.cells[CLEAN]['models'].items():
            if not model['value']:
                self.progress.say(
                    f'{name}: {self.protocol["metric"]} is 0 on clean images, so there is no rPC; '
                    f'see whether its checkpoint, classes and data_preprocessor are of this config'
                )

    def _add_pictures(self, condition: Condition) -> None:
        """Store the examples as classifiers see them: a report cannot know their cropping."""
        for number in self.examples:
            if 'gt_label' not in self.test_set.images.info(number):
                continue
            for view in set(self.test_set.views):
                if self.folder.has_example(condition, number, view):
                    continue
                # An image that cannot be read is named in the cell, or has ended the run.
                with contextlib.suppress(*UNREADABLE_ERRORS, RuntimeError):
                    image = self.test_set.images.picture(condition, number, view)
                    data = cv2.imencode('.jpg', image, JPEG)[1].tobytes()
                    self.folder.add_example(condition, number, view, data)

    def _costs(self) -> dict:
        costs = self.folder.cached('costs')
        if costs is None:
            self.progress.say('measuring what the models cost')
            costs = measure_costs(self.models, self.test_set)
            self.folder.cache('costs', costs)
        return costs

    def _choose_examples(self) -> list[int]:
        if not self.models[0].adapter.has_examples:
            return []
        ids = self.test_set.ids
        examples = choose_subset(ids, min(EXAMPLES, len(ids)))
        # Images with several labels each end the run with an error where they are scored.
        labels = [self.test_set.images.info(number).get('gt_label', 0) for number in examples]
        return examples if all(isinstance(label, Integral) for label in labels) else []

    def results(self) -> dict:
        """Return the content of results.json."""
        cells = self.folder.cells
        names = [source.name for source in self.sources]
        published = alexnet if self.mce_reference == ALEXNET else None
        models = build_models(
            cells, names, self.conditions, self.reference, self.settings.partial, published
        )
        shifts = {
            c.corruption: build_shifts(cells[c], cells[CLEAN], names, self.reference)
            for c in self.shifted_sets
            if c in cells and CLEAN in cells
        }
        for name, model in models.items():
            model['shifts'] = {kind: found[name] for kind, found in shifts.items()}
        return {
            'protocol': self.protocol,
            'reference': self.reference,
            'mCE_reference': self.mce_reference,
            'finished': all(c in cells for c in [*self.conditions, *self.shifted_sets]),
            'models': {
                source.name: {
                    'config': source.config,
                    'checkpoint': source.checkpoint,
                    'view': view,
                    **models[source.name],
                    'cost': self.costs.get(source.name),
                }
                for source, view in zip(self.sources, self.test_set.views, strict=True)
            },
            'classes': distinct_names(self.test_set.metainfo.get('classes') or ()),
            'examples': [self._example(number) for number in self.examples],
            'unreadable': self._unreadable(),
            'times': _total_times(cells, names),
        }

    def _example(self, number: int) -> dict:
        info = self.test_set.images.info(number)
        return {
            'number': number,
            'img_id': info.get('img_id'),
            'img_path': info.get('img_path'),
            'ground_truth': _ground_truth(info),
        }

    def _unreadable(self) -> list[dict]:
        """Return the unreadable images of all cells, by their names."""
        found = {
            one['image']: one for cell in self.folder.cells.values() for one in cell['unreadable']
        }
        return [found[image] for image in sorted(found)]

    def _check_unreadable(self, results: dict) -> None:
        """Raise UnreadableImagesError, with the results, if images are in no figure."""
        if not results['unreadable']:
            return
        lost = {
            condition: {one['image'] for one in cell['unreadable']}
            for condition, cell in self.folder.cells.items()
        }
        alike = len({frozenset(lost[condition]) for condition in self.conditions}) == 1
        of_test_set = set().union(*(lost[condition] for condition in self.conditions))
        counts = []
        if of_test_set:
            counts.append(f'{len(of_test_set)} of {len(self.test_set.images)} images')
        counts += [
            f'{len(lost[c])} of {len(test_set.images)} images of {c.corruption}'
            for c, test_set in self.shifted_sets.items()
            if lost[c]
        ]
        first = results['unreadable'][0]
        raise UnreadableImagesError(
            f'{" and ".join(counts)} could not be read '
            f'and are in no figure of {"" if alike else "some of the cells in "}'
            f'{self.folder.folder}/results.json, which names them: {first["image"]} '
            f'({first["error"]}); repair them and run the same again, which tests those cells '
            f'anew',
            results,
        )


def _is_imagenet_top1(evaluated: EvaluatedModel, test_set: TestSet) -> bool:
    """Return whether P is what AlexNet's published errors are: top 1 on ImageNet's classes."""
    if evaluated.adapter.key != 'accuracy/top1' or 'mmpretrain' not in sys.modules:
        return False
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    return tuple(test_set.metainfo.get('classes') or ()) == tuple(IMAGENET_CATEGORIES)


@contextlib.contextmanager
def _errors_named(name: str | None) -> Iterator[None]:
    """Put the name of a shifted set before the message of an error about it."""
    try:
        yield
    except (ModelFailedError, LoadingFailedError, ValueError) as error:
        if name is None:
            raise
        raise type(error)(f'{name}: {error}') from error


def _ground_truth(info: Mapping) -> dict:
    """Return the label of an image, or its boxes with theirs."""
    if 'gt_label' in info:
        return {'label': int(info['gt_label'])}
    objects = info.get('instances') or []
    return {
        'bboxes': [[float(x) for x in one['bbox']] for one in objects if 'bbox' in one],
        'labels': [one['bbox_label'] for one in objects if 'bbox_label' in one],
    }


def _total_times(cells: Mapping[Condition, Mapping], names: Sequence[str]) -> dict:
    seconds = [cell['seconds'] for cell in cells.values()]
    return {
        'images': float(np.sum([each['images'] for each in seconds])),
        **{
            what: {name: float(np.sum([each[what][name] for each in seconds])) for name in names}
            for what in ('forward', 'scoring')
        },
    }
