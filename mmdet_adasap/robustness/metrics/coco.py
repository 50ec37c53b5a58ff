# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Figures of COCO, unrounded, from the matches that pycocotools made."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .average_precision import Ranking, average_precision
from .base import (
    MetricAdapter,
    Score,
    check_annotations,
    compute,
    detection_example,
    process,
    replaced,
)


class Figure(NamedTuple):
    """The part of COCOeval's tables that a figure is the mean over.

    Attributes:
        iou (float, optional): The one threshold of IoU. Defaults to None, all of them.
        area (int): Index of the size of objects in areaRng: 0 all, 1 small, 2 medium, 3 large.
        max_dets (int, optional): Index in maxDets, the number of detections in an image that
            count. Defaults to 2, the largest; None for 100, wherever that is.
        recall (bool): Whether it is of the table of recalls. Defaults to False, of precisions.
    """

    iou: float | None = None
    area: int = 0
    max_dets: int | None = 2
    recall: bool = False


FIGURES = {
    'mAP': Figure(max_dets=None),
    'mAP_50': Figure(0.5),
    'mAP_75': Figure(0.75),
    'mAP_s': Figure(area=1),
    'mAP_m': Figure(area=2),
    'mAP_l': Figure(area=3),
    'AR@100': Figure(max_dets=0, recall=True),
    'AR@300': Figure(max_dets=1, recall=True),
    'AR@1000': Figure(recall=True),
    'AR_s@1000': Figure(area=1, recall=True),
    'AR_m@1000': Figure(area=2, recall=True),
    'AR_l@1000': Figure(area=3, recall=True),
}
"""By CocoMetric's names, which say 1000 whatever its proposal_nums are."""


class CocoAdapter(MetricAdapter):
    """Adapter of ``CocoMetric(metric='bbox' or 'segm')``, unrounded and resampled.

    CocoMetric rounds to three decimals, and counts the images that a subset leaves out as images
    without detections. So its COCOeval is read after it has run, on the images tested alone: it
    has the figures unrounded and the matches of every image.
    """

    metric_class = 'mmdet.evaluation', 'CocoMetric'
    has_examples = True

    @staticmethod
    def keys(metric: Any) -> list[str]:
        """Return the figures of mmdet's CocoMetric for boxes or masks, mAP first."""
        if metric.format_only:
            return []
        kinds = [kind for kind in metric.metrics if kind in ('bbox', 'segm')]
        return [f'{metric.prefix}/{kind}_{name}' for kind in kinds for name in FIGURES]

    def __init__(self, metric: Any, key: str) -> None:
        super().__init__(metric, key)
        kind, _, name = key.removeprefix(f'{metric.prefix}/').partition('_')
        self.figure = FIGURES[name]
        # Recalls are no average precision, so the resampling below is not for them.
        self.resamples = not self.figure.recall
        # CocoMetric runs one COCOeval for each kind, but none for proposal_fast.
        self._number = [one for one in metric.metrics if one != 'proposal_fast'].index(kind)
        self._from_file = metric._coco_api is not None
        # The evaluation in eight processes (mmdet 3.3) keeps no matches and gives another mAP.
        metric.use_mp_eval = False
        if self.figure.max_dets is None and 100 not in metric.proposal_nums:
            raise ValueError(
                f'{key} is for 100 detections in an image, and proposal_nums='
                f'{metric.proposal_nums} lacks 100'
            )
        if self.figure.iou is not None and self.figure.iou not in list(metric.iou_thrs):
            raise ValueError(f'{key}: iou_thrs={metric.iou_thrs} lacks {self.figure.iou}')

    def check_annotations(self, infos: Sequence[Mapping]) -> None:
        """Raise ValueError if CocoMetric's annotation file is of other images."""
        check_annotations(self.metric, infos)

    def per_image(self, samples: Sequence[dict], batch: Any) -> list:
        """Return annotations and detections of each image, as CocoMetric keeps them."""
        # Without an ann_file CocoMetric keeps the images' annotations only while it has no COCO.
        if not self._from_file:
            self.metric._coco_api = None
        return process(self.metric, samples, batch)

    def score(self, per_image: Sequence, weights: np.ndarray | None) -> Score:
        """Compute the figure, also for each class and each resample.

        Raises:
            ValueError: If no image has an object of the figure's size.
        """
        ids = [detections['img_id'] for _, detections in per_image]
        self.metric.img_ids = ids
        with _recorded_evaluations() as evaluations:
            metrics = compute(self.metric, per_image)
        evaluation = evaluations[self._number]
        table = _table(evaluation, self.figure)
        value = _mean(table)
        if value is None:
            size = ('', 'small ', 'medium ', 'large ')[self.figure.area]
            raise ValueError(f'{self.key} is not defined: the images tested have no {size}objects')
        # The table's classes are sorted by id, and dataset_meta's are in the config's order: names
        # bring them together.
        categories = self.metric._coco_api.loadCats(evaluation.params.catIds)
        by_name = {
            category['name']: _mean(table[..., column])
            for column, category in enumerate(categories)
        }
        return Score(
            value,
            {name: by_name.get(name) for name in self.metric.dataset_meta['classes']},
            {**metrics, self.key: value},
            None if weights is None else resample(evaluation, ids, weights, self.figure),
        )

    def example(self, sample: dict) -> dict:
        """Return the best detections of an image."""
        return detection_example(sample)


@contextlib.contextmanager
def _recorded_evaluations() -> Iterator[list]:
    """Record the COCOevals that CocoMetric runs inside the with block.

    CocoMetric of mmdet 3.3 does not give them away, so its COCOeval is replaced by one that
    records itself. COCO.loadRes fails on an empty list of detections. It is replaced as well, so
    that a model that finds nothing has an mAP of 0.
    """
    from mmdet.evaluation.metrics import coco_metric

    evaluations, load = [], coco_metric.COCO.loadRes

    class RecordedEvaluation(coco_metric.COCOeval):
        def summarize(self) -> None:
            super().summarize()
            evaluations.append(self)

    def load_or_empty(annotations: Any, detections: list) -> Any:
        if detections:
            return load(annotations, detections)
        empty = type(annotations)()
        empty.dataset = {**annotations.dataset, 'annotations': []}
        empty.createIndex()
        return empty

    with (
        replaced(coco_metric, 'COCOeval', RecordedEvaluation),
        replaced(coco_metric.COCO, 'loadRes', load_or_empty),
    ):
        yield evaluations


def _table(evaluation: Any, figure: Figure) -> np.ndarray:
    """Return what a figure is the mean over, (thresholds, ..., classes); -1 without objects."""
    table = evaluation.eval['recall' if figure.recall else 'precision']
    return table[_thresholds(evaluation, figure)][..., figure.area, _max_dets(evaluation, figure)]


def _thresholds(evaluation: Any, figure: Figure) -> np.ndarray:
    every = np.asarray(evaluation.params.iouThrs)
    return np.flatnonzero((every == figure.iou) | (figure.iou is None))


def _max_dets(evaluation: Any, figure: Figure) -> int:
    if figure.max_dets is not None:
        return figure.max_dets
    return list(evaluation.params.maxDets).index(100)


def _mean(table: np.ndarray) -> float | None:
    # COCOeval writes -1 where there are no objects.
    defined = table[table > -1]
    return float(defined.mean()) if defined.size else None


def resample(
    evaluation: Any, ids: Sequence, weights: np.ndarray, figure: Figure = FIGURES['mAP']
) -> np.ndarray:
    """Compute COCO's mAP for each row of weights, from the matches of a COCOeval that has run.

    Args:
        evaluation (COCOeval): After evaluate().
        ids (Sequence): The ids of the N images, in the order of the columns of ``weights``.
        weights (ndarray): How often each counts, float32, (R, N).
        figure (Figure): Which mAP, none of recalls. Defaults to that over all thresholds.

    Returns:
        ndarray: (R,); 0 where a resample has no objects.
    """
    params = evaluation.params
    column_of = {image: column for column, image in enumerate(ids)}
    columns = [column_of[image] for image in params.imgIds]
    areas, images = len(params.areaRng), len(params.imgIds)
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for category in range(len(params.catIds)):
        # evalImgs is a flat list over categories, areas and images, in this order.
        start = (category * areas + figure.area) * images
        matches = evaluation.evalImgs[start : start + images]
        for ranking in _rankings(evaluation, figure, columns, matches, len(ids)):
            ap, objects = average_precision(ranking, weights, params.recThrs, np.float64)
            total += ap
            classes += objects > 0
    return total / np.maximum(classes, 1)


def _rankings(
    evaluation: Any, figure: Figure, columns: Sequence[int], matches: Sequence, images: int
) -> Iterator[Ranking]:
    """Yield the ranked detections of one class, once for each threshold of IoU.

    Args:
        evaluation (COCOeval): After evaluate().
        figure (Figure): Which thresholds and how many detections.
        columns (Sequence[int]): For each entry of ``matches`` the number of its image.
        matches (Sequence): Entries of evalImgs, None where an image has neither objects nor
            detections of the class.
        images (int): Number of images.
    """
    matches = [
        (column, match)
        for column, match in zip(columns, matches, strict=True)
        if match is not None
    ]
    objects = np.zeros(images, np.float32)
    for column, match in matches:
        objects[column] = np.count_nonzero(np.asarray(match['gtIgnore']) == 0)
    if not objects.any():
        return
    thresholds = _thresholds(evaluation, figure)
    most = evaluation.params.maxDets[_max_dets(evaluation, figure)]
    scores = np.concatenate([match['dtScores'][:most] for _, match in matches])
    # As pycocotools sorts, so that ties have the same order.
    order = np.argsort(-scores, kind='mergesort')
    image = np.repeat(
        [column for column, _ in matches],
        [len(match['dtScores'][:most]) for _, match in matches],
    )[order].astype(np.int64)
    matched, ignored = (
        np.concatenate([match[key][thresholds, :most] for _, match in matches], axis=1)[
            :, order
        ].astype(bool)
        for key in ('dtMatches', 'dtIgnore')
    )
    for hit, miss in zip(matched & ~ignored, ~matched & ~ignored, strict=True):
        yield Ranking(image, hit, miss, objects)
