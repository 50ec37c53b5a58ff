# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The cells of a robustness run, one after the other, and what is written about them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.dist import get_dist_info

from ..errors import LoadingFailedError, ModelFailedError, UnreadableImagesError
from ..integration.distributed import broadcast_from_rank_0, raise_on_all_ranks
from .datasets.multi_view import CLEAN, NO_IMAGE, Condition
from .engine import ConditionResult, EvaluatedModel, evaluate_conditions
from .metrics.accuracy import distinct
from .metrics.bootstrap import image_weights
from .metrics.mpc import ALEXNET, alexnet
from .models import ModelSource, measure_costs
from .protocol import choose_subset
from .results import build_models, cell_to_dict
from .shifted_sets import build_shifts, seed_of_draws
from .store import ResultsFolder
from .test_set import TestSet

EXAMPLES = 6
"""Images of which is kept for a report what models found in them."""
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
"""Colours are not made coarser than the rest: pictures may be of 32 pixels. 0x111111 is 4:4:4."""


class Progress(NamedTuple):
    """What a run tells while it runs.

    Attributes:
        start (Callable): Called with the number of images of all cells in this process, and of
            those that were tested before.
        images (Callable): Called with a number of images that were tested.
        say (Callable): Called with a line of text.
    """

    start: Callable[[int, int], object] = lambda total, done: None
    images: Callable[[int], object] = lambda count: None
    say: Callable[[str], object] = lambda line: None


class Compared(NamedTuple):
    """What differences refer to, and what mCE: models by their names, or AlexNet."""

    reference: str
    errors: str


class Run:
    """The cells of a run and what is written about them."""

    def __init__(
        self,
        sources: Sequence[ModelSource],
        subjects: list[EvaluatedModel],
        shared: TestSet,
        shifted: dict[Condition, TestSet],
        conditions: list[Condition],
        protocol: dict,
        compared: Compared,
        partial: bool,
    ) -> None:
        self.sources, self.subjects, self.shared = sources, subjects, shared
        self.conditions, self.shifted, self.protocol = conditions, shifted, protocol
        self.compared, self.partial = compared, partial
        self.rank, self.processes = get_dist_info()
        self.folder: ResultsFolder | None = None
        # Once: results.json is written after every cell, and this looks at every image.
        self.examples = self._examples()

    def run(
        self,
        out: str | Path,
        batch_size: int,
        workers: int,
        resamples: int,
        seed: int,
        progress: Progress,
    ) -> dict | None:
        """Test what is not there yet; what results.json says, on rank 0."""
        every = [*self.conditions, *self.shifted]
        left = []
        with raise_on_all_ranks():
            if self.rank == 0:
                self.folder = ResultsFolder(out, self.protocol)
                self.costs = self._costs(progress)
                left = [c for c in every if c not in self.folder.cells]
                for condition in self.conditions:
                    if condition not in left:
                        self._show_examples(condition)
                self.folder.write(self.results())
        left = broadcast_from_rank_0(left)
        progress.start(self._count(every), self._count(every) - self._count(left))
        jobs = [(self.shared, [c for c in left if c in self.conditions], self.examples, seed)]
        jobs += [
            (shared, [c], [], seed_of_draws(seed, c.corruption))
            for c, shared in self.shifted.items()
            if c in left
        ]
        for shared, conditions, examples, drawn in jobs:
            images = shared.images
            other = shared is not self.shared
            found = evaluate_conditions(
                self.subjects,
                images,
                # Another set is tested as it is.
                [CLEAN] if other else conditions,
                shared.collate,
                batch_size,
                workers,
                image_weights(len(images), resamples, drawn) if resamples else None,
                examples,
                progress.images,
            )
            with _about(conditions[0].corruption if other else None):
                for condition, cell in zip(conditions, found, strict=True):
                    if cell is not None:
                        self._keep(condition, cell)
        if self.rank != 0:
            return None
        self.folder.close()
        results = self.results()
        self._refuse_unreadable(results)
        return results

    def _count(self, conditions: Sequence[Condition]) -> int:
        """Images of this process under all of them."""
        sets = [self.shifted.get(condition, self.shared) for condition in conditions]
        return sum(len(shared.images) // self.processes for shared in sets)

    def _keep(self, condition: Condition, cell: ConditionResult) -> None:
        cell.condition = condition
        if condition in self.conditions:
            self._show_examples(condition)
        self.folder.add(condition, cell_to_dict(cell))
        self.folder.write(self.results())

    def _show_examples(self, condition: Condition) -> None:
        """Keep what classifiers saw: a report does not know how they cut it from the file."""
        for number in self.examples:
            if 'gt_label' not in self.shared.images.info(number):
                continue
            for view in set(self.shared.views):
                if self.folder.shows(condition, number, view):
                    continue
                # One that cannot be read is named in the cell, or has ended the run.
                with contextlib.suppress(*NO_IMAGE, RuntimeError):
                    image = self.shared.images.seen(condition, number, view)
                    data = cv2.imencode('.jpg', image, JPEG)[1].tobytes()
                    self.folder.show(condition, number, view, data)

    def _costs(self, progress: Progress) -> dict:
        costs = self.folder.kept('costs')
        if costs is None:
            progress.say('measuring what the models cost')
            costs = measure_costs(self.subjects, self.shared)
            self.folder.keep('costs', costs)
        return costs

    def _examples(self) -> list[int]:
        if not self.subjects[0].adapter.has_examples:
            return []
        ids = self.shared.ids
        found = choose_subset(ids, min(EXAMPLES, len(ids)))
        # Images of many labels each are refused where they are scored.
        labels = [self.shared.images.info(number).get('gt_label', 0) for number in found]
        return found if all(isinstance(label, Integral) for label in labels) else []

    def results(self) -> dict:
        """What results.json says."""
        cells = self.folder.cells
        names = [source.name for source in self.sources]
        reference, errors = self.compared
        published = alexnet if errors == ALEXNET else None
        models = build_models(cells, names, self.conditions, reference, self.partial, published)
        shifts = {
            condition.corruption: build_shifts(cells[condition], cells[CLEAN], names, reference)
            for condition in self.shifted
            if condition in cells and CLEAN in cells
        }
        for name, model in models.items():
            model['shifts'] = {kind: found[name] for kind, found in shifts.items()}
        return {
            'protocol': self.protocol,
            'reference': reference,
            'mCE_reference': errors,
            'finished': all(c in cells for c in [*self.conditions, *self.shifted]),
            'models': {
                source.name: {
                    'config': source.config,
                    'checkpoint': source.checkpoint,
                    'view': view,
                    **models[source.name],
                    'cost': self.costs.get(source.name),
                }
                for source, view in zip(self.sources, self.shared.views, strict=True)
            },
            'classes': distinct(self.shared.metainfo.get('classes') or ()),
            'examples': [self._example(number) for number in self.examples],
            'unreadable': self._unreadable(),
            'times': _total_times(cells, names),
        }

    def _example(self, number: int) -> dict:
        info = self.shared.images.info(number)
        return {
            'number': number,
            'img_id': info.get('img_id'),
            'img_path': info.get('img_path'),
            'ground_truth': _truth(info),
        }

    def _unreadable(self) -> list[dict]:
        """Those of all cells, by their names."""
        found = {
            one['image']: one for cell in self.folder.cells.values() for one in cell['unreadable']
        }
        return [found[image] for image in sorted(found)]

    def _unreadable_under(self, condition: Condition) -> set[str]:
        return {one['image'] for one in self.folder.cells[condition]['unreadable']}

    def _refuse_unreadable(self, results: dict) -> None:
        if not results['unreadable']:
            return
        lost = {condition: self._unreadable_under(condition) for condition in self.folder.cells}
        alike = len({frozenset(lost[condition]) for condition in self.conditions}) == 1
        of_test_set = set().union(*(lost[condition] for condition in self.conditions))
        counts = [f'{len(of_test_set)} of {len(self.shared.images)} images'] if of_test_set else []
        counts += [
            f'{len(lost[condition])} of {len(shared.images)} images of {condition.corruption}'
            for condition, shared in self.shifted.items()
            if lost[condition]
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


@contextlib.contextmanager
def _about(name: str | None) -> Iterator[None]:
    """Say of errors which other test set they are about."""
    try:
        yield
    except (ModelFailedError, LoadingFailedError, ValueError) as error:
        if name is None:
            raise
        raise type(error)(f'{name}: {error}') from error


def _truth(info: Mapping) -> dict:
    """What is true of an image: its class, or boxes and theirs."""
    if 'gt_label' in info:
        return {'label': int(info['gt_label'])}
    objects = info.get('instances') or []
    return {
        'bboxes': [[float(x) for x in one['bbox']] for one in objects if 'bbox' in one],
        'labels': [one['bbox_label'] for one in objects if 'bbox_label' in one],
    }


def _total_times(cells: dict, names: Sequence[str]) -> dict:
    seconds = [cell['seconds'] for cell in cells.values()]
    return {
        'images': float(np.sum([each['images'] for each in seconds])),
        **{
            what: {name: float(np.sum([each[what][name] for each in seconds])) for name in names}
            for what in ('forward', 'scoring')
        },
    }
