# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..average_precision import Ranking, average_precision
from .scorer import Score, Scorer, computed, results_of
from .voc import boxes_of


class CocoScorer(Scorer):
    """``CocoMetric(metric='bbox' or 'segm')``, unrounded, over the images that were tested alone.

    The metric rounds to three decimals and takes images that a subset leaves out for images
    without detections. Its COCOeval is looked at after it ran: it has the mAP as it is, and the
    matches of every image, which are resampled.
    """

    @staticmethod
    def takes(metric: Any) -> bool:
        """Whether this scores a metric: mmdet's own CocoMetric for boxes or masks."""
        from mmdet.evaluation import CocoMetric

        return (
            type(metric) is CocoMetric
            and metric.metrics[0] in ('bbox', 'segm')
            and not metric.format_only
        )

    def __init__(self, metric: Any) -> None:
        super().__init__(metric)
        self.key = f'{metric.prefix}/{metric.metrics[0]}_mAP'
        self._from_file = metric._coco_api is not None

    def records(self, samples: Sequence[dict], batch: Any) -> list:
        # Where the truth comes with the images, it is only kept while there is no COCO yet.
        if not self._from_file:
            self.metric._coco_api = None
        return results_of(self.metric, samples, batch)

    def score(self, records: Sequence, weights: np.ndarray | None) -> Score:
        ids = [found['img_id'] for _, found in records]
        self.metric.img_ids = ids
        with _watched() as evaluations:
            metrics = computed(self.metric, records)
        classes = self.metric.dataset_meta['classes']
        if not evaluations:  # COCO's code takes no set without any detection
            zeros = None if weights is None else np.zeros(len(weights))
            return Score(0.0, dict.fromkeys(classes, 0.0), {self.key: 0.0}, zeros)
        first = evaluations[0]
        per_class = {}
        # (thresholds, recalls, classes, areas, numbers of detections): all areas, 100 detections
        precision = first.eval['precision'][..., 0, _hundred(first)]
        for number, name in enumerate(classes):
            known = precision[..., number][precision[..., number] > -1]
            per_class[name] = float(known.mean()) if known.size else None
        value = float(first.stats[0])
        if value < 0:
            raise ValueError(f'{self.key} is not defined: the images tested have no objects')
        resampled = None if weights is None else resample(first, ids, weights)
        return Score(value, per_class, {**metrics, self.key: value}, resampled)

    def example(self, sample: dict) -> dict:
        return boxes_of(sample)


@contextlib.contextmanager
def _watched() -> Iterator[list]:
    """The COCOevals that are run in here, as CocoMetric gives only some figures of them."""
    from mmdet.evaluation.metrics import coco_metric

    kept, names = [], ('COCOeval', 'COCOevalMP')
    originals = {name: getattr(coco_metric, name) for name in names if hasattr(coco_metric, name)}
    for name, original in originals.items():

        class Kept(original):
            def summarize(self) -> None:
                super().summarize()
                kept.append(self)

        setattr(coco_metric, name, Kept)
    try:
        yield kept
    finally:
        for name, original in originals.items():
            setattr(coco_metric, name, original)


def _hundred(evaluation: Any) -> int:
    """Which number of detections COCO's mAP is for: 100."""
    return list(evaluation.params.maxDets).index(100)


def resample(evaluation: Any, ids: Sequence, weights: np.ndarray) -> np.ndarray:
    """COCO's mAP for each row of weights, from the matches of a COCOeval that has run.

    Args:
        evaluation (COCOeval): After evaluate().
        ids (Sequence): The ids of the N images, in the order of the columns of ``weights``.
        weights (ndarray): How often each counts, float32, (R, N).

    Returns:
        ndarray: (R,); 0 where a resample has no objects.
    """
    params = evaluation.params
    position = {image: column for column, image in enumerate(ids)}
    columns = [position[image] for image in params.imgIds]
    areas, images = len(params.areaRng), len(params.imgIds)
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for category in range(len(params.catIds)):
        start = category * areas * images
        cells = [
            (column, cell)
            for column, cell in zip(
                columns, evaluation.evalImgs[start : start + images], strict=True
            )
            if cell is not None
        ]
        objects = np.zeros(len(ids), np.float32)
        for column, cell in cells:
            objects[column] = np.count_nonzero(np.asarray(cell['gtIgnore']) == 0)
        if not objects.any():
            continue
        scores = np.concatenate([cell['dtScores'][:100] for _, cell in cells])
        order = np.argsort(-scores, kind='mergesort')
        image = np.repeat(
            [column for column, _ in cells], [len(cell['dtScores'][:100]) for _, cell in cells]
        )[order].astype(np.int64)
        matched, ignored = (
            np.concatenate([cell[key][:, :100] for _, cell in cells], axis=1)[:, order].astype(
                bool
            )
            for key in ('dtMatches', 'dtIgnore')
        )
        for hit, miss in zip(matched & ~ignored, ~matched & ~ignored, strict=True):
            ranking = Ranking(image, hit, miss, objects)
            ap, there = average_precision(ranking, weights, params.recThrs, np.float64)
            total += ap
            classes += there > 0
    return total / np.maximum(classes, 1)
