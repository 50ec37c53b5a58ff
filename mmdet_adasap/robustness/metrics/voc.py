# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .average_precision import Ranking, average_precision, mean_over_classes
from .base import MetricAdapter, Score, computed, is_class_of, results_of

POINTS = np.arange(0, 1 + 1e-3, 0.1)
"""The 11 recalls of VOC2007, with the rounding that eval_map's have."""
LABELS = ('bboxes', 'labels')


class Matches(NamedTuple):
    """What VOC's AP needs to know of one image.

    Attributes:
        labels (ndarray): Classes of the D detections, (D,).
        scores (ndarray): Their scores, float32, (D,).
        hit (ndarray): Whether each finds an object, at each of T thresholds, bool, (T, D).
        miss (ndarray): Whether it is wrong; neither where it finds what is to be ignored.
        objects (ndarray): Classes of the objects that count.
    """

    labels: np.ndarray
    scores: np.ndarray
    hit: np.ndarray
    miss: np.ndarray
    objects: np.ndarray


class VOCAdapter(MetricAdapter):
    """``VOCMetric(metric='mAP')``, unrounded, from matches that are made once for each image.

    eval_map matches every class of every image in four processes that it starts anew, for each
    evaluation; this gives the same mAP to the last bit, and resamples it.
    """

    has_examples = True
    has_reference = True

    @staticmethod
    def keys(metric: Any) -> list[str]:
        """The mAP of mmdet's own VOCMetric over boxes of all sizes."""
        if (
            not is_class_of(metric, 'mmdet.evaluation', 'VOCMetric')
            or metric.metric != 'mAP'
            or metric.scale_ranges
        ):
            return []
        return [f'{metric.prefix}/mAP']

    def __init__(self, metric: Any, key: str) -> None:
        super().__init__(metric, key)
        self._points = POINTS if metric.eval_mode == '11points' else None

    def records(self, samples: Sequence[dict], batch: Any) -> list[Matches]:
        return [self._match(sample) for sample in samples]

    def score(self, records: Sequence[Matches], weights: np.ndarray | None) -> Score:
        classes = self.metric.dataset_meta['classes']
        once = np.ones((1, len(records)), np.float32)
        rows = once if weights is None else np.concatenate([once, weights])
        by_class = _by_class(records, len(classes))
        maps, aps = [], []
        for threshold in range(len(self.metric.iou_thrs)):
            found = [
                average_precision(ranking, rows, self._points, np.float32)
                for ranking in (_ranked(one, threshold) for one in by_class)
            ]
            ap, objects = (np.stack(part) for part in zip(*found, strict=True))
            maps.append(mean_over_classes(ap, objects))
            aps.append(ap[:, 0])
        # As VOCMetric does: Python's numbers, one after the other.
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
        expected = computed(self.metric, results_of(self.metric, samples, None))[self.key]
        if abs(expected - score.value) > 1e-9:
            raise RuntimeError(
                f'VOCMetric of this mmdet computes {self.key} = {expected!r} and mmdet_adasap '
                f'{score.value!r} from the same boxes; use the mmdet of requirements/'
            )

    def example(self, sample: dict) -> dict:
        return boxes_of(sample)

    def _match(self, sample: dict) -> Matches:
        from mmdet.evaluation.functional import bbox_overlaps

        found, objects, ignored = (
            {name: _array(part[name]) for name in names}
            for part, names in (
                (sample['pred_instances'], (*LABELS, 'scores')),
                (_truth(sample, 'gt_instances'), LABELS),
                (_truth(sample, 'ignored_instances'), LABELS),
            )
        )
        labels = found['labels']
        thresholds = len(self.metric.iou_thrs)
        hit = np.zeros((thresholds, len(labels)), bool)
        miss = np.ones((thresholds, len(labels)), bool)
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
    """True and false positives among detections of one class, best first, as of VOC.

    Each takes the object that it overlaps most with; who comes second is wrong.
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


def _by_class(records: Sequence[Matches], classes: int) -> list[tuple]:
    """Of each class the detections in the order of images, and the objects in each image."""
    labels = np.concatenate([record.labels for record in records])
    scores = np.concatenate([record.scores for record in records])
    hit = np.concatenate([record.hit for record in records], axis=1)
    miss = np.concatenate([record.miss for record in records], axis=1)
    image = np.repeat(np.arange(len(records)), [len(record.labels) for record in records])
    objects = np.zeros((classes, len(records)), np.float32)
    for number, record in enumerate(records):
        np.add.at(objects[:, number], record.objects, 1)
    result = []
    for label in range(classes):
        where = np.flatnonzero(labels == label)
        # eval_map's order, to the last tie: the same sort of the same numbers.
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


def boxes_of(sample: dict, at_most: int = 30) -> dict:
    """The best detections of an image: 'bboxes' (x1, y1, x2, y2), 'scores' and 'labels'.

    Boxes that are no place in an image, as a model that diverged gives, are left out.
    """
    found = sample['pred_instances']
    scores, boxes = _array(found['scores']), _array(found['bboxes'])
    there = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    best = there[np.argsort(-scores[there], kind='stable')[:at_most]]
    return {
        'bboxes': boxes[best].astype(float).round(2).tolist(),
        'scores': scores[best].astype(float).round(4).tolist(),
        'labels': _array(found['labels'])[best].astype(int).tolist(),
    }


def _array(value: Any) -> np.ndarray:
    return getattr(value, 'tensor', value).detach().cpu().numpy()
