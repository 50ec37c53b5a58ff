# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""mAP of Pascal VOC, from matches that are made once for each image."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .average_precision import Ranking, average_precision, mean_over_classes
from .base import (
    MetricAdapter,
    Score,
    compute,
    detection_example,
    process,
    to_numpy,
)

POINTS = np.arange(0, 1 + 1e-3, 0.1)
"""The 11 recalls of VOC2007, written as eval_map writes them: linspace would round otherwise."""
BOXES = ('bboxes', 'labels')


class Matches(NamedTuple):
    """The detections of one image, matched with its objects.

    Attributes:
        labels (ndarray): Classes of the D detections, (D,).
        scores (ndarray): Their scores, float32, (D,).
        hit (ndarray): Which are true positives, at each of T thresholds of IoU, bool, (T, D).
        miss (ndarray): Which are false positives, bool, (T, D). Those that match an object to be
            ignored are neither.
        objects (ndarray): Classes of the objects that count.
    """

    labels: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    miss: np.ndarray
    objects: np.ndarray


class VOCAdapter(MetricAdapter):
    """Adapter of ``VOCMetric(metric='mAP')``, unrounded and resampled.

    eval_map matches every class of every image anew for each evaluation, in four processes. This
    matches once and gives the same mAP to the last bit.
    """

    metric_class = 'mmdet.evaluation', 'VOCMetric'
    has_examples = True
    has_reference = True

    @staticmethod
    def keys(metric: Any) -> list[str]:
        """Return the mAP of mmdet's VOCMetric, if it is over boxes of all sizes."""
        if metric.metric != 'mAP' or metric.scale_ranges:
            return []
        return [f'{metric.prefix}/mAP']

    def __init__(self, metric: Any, key: str) -> None:
        super().__init__(metric, key)
        self._points = POINTS if metric.eval_mode == '11points' else None

    def per_image(self, samples: Sequence[dict], batch: Any) -> list[Matches]:
        """Return the matches of each image.

        Raises:
            ValueError: If the dataset's pipeline gives no annotations.
        """
        return [self._match(sample) for sample in samples]

    def score(self, per_image: Sequence[Matches], weights: np.ndarray | None) -> Score:
        """Compute mAP, the mean over the thresholds of IoU, and AP of each class."""
        classes = self.metric.dataset_meta['classes']
        # The first row counts every image once: P itself comes with the resamples.
        once = np.ones((1, len(per_image)), np.float32)
        rows = once if weights is None else np.concatenate([once, weights])
        by_class = _by_class(per_image, len(classes))
        maps, aps = [], []
        for threshold in range(len(self.metric.iou_thrs)):
            found = [
                average_precision(ranking, rows, self._points, np.float32)
                for ranking in (_ranked(one, threshold) for one in by_class)
            ]
            ap, objects = (np.stack(part) for part in zip(*found, strict=True))
            maps.append(mean_over_classes(ap, objects))
            aps.append(ap[:, 0])
        # Python's sum, as VOCMetric has it: numpy's would differ in the last bit.
        value = sum(float(each[0]) for each in maps) / len(maps)
        per_class = np.mean(aps, axis=0, dtype=np.float64)
        resampled = np.mean(maps, axis=0, dtype=np.float64)[1:]
        return Score(
            value,
            {
                name: float(ap) if objects[number, 0] else None
                for number, (name, ap) in enumerate(zip(classes, per_class, strict=True))
            },
            {
                self.key: value,
                **{
                    f'{self.metric.prefix}/AP{int(iou * 100):02d}': float(each[0])
                    for iou, each in zip(self.metric.iou_thrs, maps, strict=True)
                },
            },
            None if weights is None else resampled,
        )

    def check(self, samples: Sequence[dict], score: Score) -> None:
        """Raise RuntimeError if VOCMetric computes another mAP from the same boxes."""
        expected = compute(self.metric, process(self.metric, samples, None))[self.key]
        # They are equal to the bit with the mmdet of requirements/; 1e-9 lets others round.
        if abs(expected - score.value) > 1e-9:
            raise RuntimeError(
                f'VOCMetric of this mmdet computes {self.key} = {expected!r} and mmdet_adasap '
                f'{score.value!r} from the same boxes; use the mmdet of requirements/'
            )

    def example(self, sample: dict) -> dict:
        """Return the best detections of an image."""
        return detection_example(sample)

    def _match(self, sample: dict) -> Matches:
        # Not at the top of the file: mmdet is not loaded for classifiers.
        from mmdet.evaluation.functional import bbox_overlaps

        found, objects, ignored = (
            {name: to_numpy(part[name]) for name in names}
            for part, names in (
                (sample['pred_instances'], (*BOXES, 'scores')),
                (_truth(sample, 'gt_instances'), BOXES),
                (_truth(sample, 'ignored_instances'), BOXES),
            )
        )
        labels = found['labels']
        thresholds = len(self.metric.iou_thrs)
        hit = np.zeros((thresholds, len(labels)), bool)
        miss = np.ones((thresholds, len(labels)), bool)
        # As in eval_map objects to be ignored come last, so ties of IoU go to those that count.
        there = np.concatenate([objects['labels'], ignored['labels']])
        boxes = np.concatenate([objects['bboxes'], ignored['bboxes']])
        counts = np.arange(len(there)) < len(objects['labels'])
        near = np.flatnonzero(np.isin(labels, there))
        if len(near):
            ious = bbox_overlaps(found['bboxes'][near], boxes, use_legacy_coordinate=True)
        for label in np.unique(labels[near]):
            mine, theirs = labels[near] == label, there == label
            rows = near[mine]
            order = np.argsort(-found['scores'][rows])
            overlaps = ious[mine][:, theirs][order]
            for number, iou in enumerate(self.metric.iou_thrs):
                hit[number, rows[order]], miss[number, rows[order]] = _assign(
                    overlaps, counts[theirs], iou
                )
        return Matches(labels, found['scores'], hit, miss, objects['labels'])


def _assign(ious: np.ndarray, counts: np.ndarray, iou: float) -> tuple[np.ndarray, np.ndarray]:
    """Return true and false positives among detections of one class, best first, as VOC does.

    Each detection matches the object that it overlaps most. The second one that matches the same
    object is a false positive, even where another object is free.

    Args:
        ious (ndarray): Of D detections and G objects, (D, G).
        counts (ndarray): Which of the objects are not to be ignored, bool, (G,).
        iou (float): The threshold.
    """
    best = ious.argmax(axis=1)
    near = ious.max(axis=1) >= iou
    hit, miss = np.zeros(len(ious), bool), ~near
    taken = np.zeros(len(counts), bool)
    for row in np.flatnonzero(near):
        target = best[row]
        if counts[target]:
            hit[row], miss[row] = not taken[target], taken[target]
            taken[target] = True
    return hit, miss


def _by_class(per_image: Sequence[Matches], classes: int) -> list[tuple]:
    """Return for each class image, hit and miss of its detections, and its objects by image."""
    labels = np.concatenate([matches.labels for matches in per_image])
    scores = np.concatenate([matches.scores for matches in per_image])
    hit = np.concatenate([matches.hit for matches in per_image], axis=1)
    miss = np.concatenate([matches.miss for matches in per_image], axis=1)
    image = np.repeat(np.arange(len(per_image)), [len(matches.labels) for matches in per_image])
    objects = np.zeros((classes, len(per_image)), np.float32)
    for number, matches in enumerate(per_image):
        np.add.at(objects[:, number], matches.objects, 1)
    result = []
    for label in range(classes):
        where = np.flatnonzero(labels == label)
        # The same sort of the same numbers as in eval_map, so that ties have the same order.
        where = where[np.argsort(-scores[where])]
        result.append((image[where], hit[:, where], miss[:, where], objects[label]))
    return result


def _ranked(one: tuple, threshold: int) -> Ranking:
    image, hit, miss, objects = one
    return Ranking(image, hit[threshold], miss[threshold], objects)


def _truth(sample: dict, key: str) -> dict:
    if key not in sample:
        raise ValueError(
            f"the dataset's pipeline gives no {key}, which VOCMetric compares with: it needs "
            f"dict(type='LoadAnnotations', with_bbox=True)"
        )
    return sample[key]
