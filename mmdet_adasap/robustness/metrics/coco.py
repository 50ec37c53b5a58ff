# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from .average_precision import Ranking, average_precision
from .base import MetricAdapter, Score, computed, is_class_of, results_of
from .voc import boxes_of


class Figure(NamedTuple):
    """Which part of COCO's tables a figure is the mean over.

    Attributes:
        iou (float, optional): The one threshold; None for all.
        area (int): Size of objects: 0 for all, 1 small, 2 medium, 3 large.
        most (int, optional): Which of proposal_nums the detections of an image are cut to, from
            0; None for 100, wherever that is.
        recall (bool): Whether it is of the table of recalls and not of precisions.
    """

    iou: float | None = None
    area: int = 0
    most: int | None = 2
    recall: bool = False


FIGURES = {
    'mAP': Figure(most=None),
    'mAP_50': Figure(0.5),
    'mAP_75': Figure(0.75),
    'mAP_s': Figure(area=1),
    'mAP_m': Figure(area=2),
    'mAP_l': Figure(area=3),
    'AR@100': Figure(most=0, recall=True),
    'AR@300': Figure(most=1, recall=True),
    'AR@1000': Figure(recall=True),
    'AR_s@1000': Figure(area=1, recall=True),
    'AR_m@1000': Figure(area=2, recall=True),
    'AR_l@1000': Figure(area=3, recall=True),
}
"""By CocoMetric's names, which say 1000 whatever proposal_nums are."""


class CocoAdapter(MetricAdapter):
    """``CocoMetric(metric='bbox' or 'segm')``, unrounded, over the images that were tested alone.

    The metric rounds to three decimals and takes images that a subset leaves out for images
    without detections. Its COCOeval is looked at after it ran: it has the figures as they are, and
    the matches of every image, which are resampled.
    """

    has_examples = True

    @staticmethod
    def keys(metric: Any) -> list[str]:
        """The figures of mmdet's own CocoMetric for boxes or masks, mAP of the first ahead."""
        if not is_class_of(metric, 'mmdet.evaluation', 'CocoMetric') or metric.format_only:
            return []
        kinds = [kind for kind in metric.metrics if kind in ('bbox', 'segm')]
        return [f'{metric.prefix}/{kind}_{name}' for kind in kinds for name in FIGURES]

    def __init__(self, metric: Any, key: str) -> None:
        super().__init__(metric, key)
        kind, _, name = key.removeprefix(f'{metric.prefix}/').partition('_')
        self.figure = FIGURES[name]
        self.resamples = not self.figure.recall
        self._number = [one for one in metric.metrics if one != 'proposal_fast'].index(kind)
        self._from_file = metric._coco_api is not None
        # The one that computes in eight processes keeps no matches, and has another mAP.
        metric.use_mp_eval = False
        if self.figure.most is None and 100 not in metric.proposal_nums:
            raise ValueError(
                f'{key} is for 100 detections in an image, and proposal_nums='
                f'{metric.proposal_nums} lacks 100'
            )
        if self.figure.iou is not None and self.figure.iou not in list(metric.iou_thrs):
            raise ValueError(f'{key}: iou_thrs={metric.iou_thrs} lacks {self.figure.iou}')

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
        evaluation = evaluations[self._number]
        table = _table(evaluation, self.figure)
        value = _mean(table)
        if value is None:
            size = ('', 'small ', 'medium ', 'large ')[self.figure.area]
            raise ValueError(f'{self.key} is not defined: the images tested have no {size}objects')
        # Sorted by id; labels follow the file, and the config's order is a third one.
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
        return boxes_of(sample)


@contextlib.contextmanager
def _watched() -> Iterator[list]:
    """The COCOevals that are run in here, as CocoMetric gives only some figures of them.

    They are run for a model that finds nothing, too, which COCO's code refuses to load: what has
    no objects then has no figure, as ever.
    """
    from mmdet.evaluation.metrics import coco_metric

    kept, load = [], coco_metric.COCO.loadRes

    class Kept(coco_metric.COCOeval):
        def summarize(self) -> None:
            super().summarize()
            kept.append(self)

    def load_any(truth: Any, found: list) -> Any:
        if found:
            return load(truth, found)
        nothing = type(truth)()
        nothing.dataset = {**truth.dataset, 'annotations': []}
        nothing.createIndex()
        return nothing

    with (
        mock.patch.object(coco_metric, 'COCOeval', Kept),
        mock.patch.object(coco_metric.COCO, 'loadRes', load_any),
    ):
        yield kept


def _table(evaluation: Any, figure: Figure) -> np.ndarray:
    """What a figure is the mean over, (thresholds, ..., classes); -1 without objects."""
    table = evaluation.eval['recall' if figure.recall else 'precision']
    return table[_thresholds(evaluation, figure)][..., figure.area, _most(evaluation, figure)]


def _thresholds(evaluation: Any, figure: Figure) -> np.ndarray:
    every = np.asarray(evaluation.params.iouThrs)
    return np.flatnonzero((every == figure.iou) | (figure.iou is None))


def _most(evaluation: Any, figure: Figure) -> int:
    if figure.most is not None:
        return figure.most
    return list(evaluation.params.maxDets).index(100)


def _mean(table: np.ndarray) -> float | None:
    known = table[table > -1]
    return float(known.mean()) if known.size else None


def resample(
    evaluation: Any, ids: Sequence, weights: np.ndarray, figure: Figure = FIGURES['mAP']
) -> np.ndarray:
    """COCO's mAP for each row of weights, from the matches of a COCOeval that has run.

    Args:
        evaluation (COCOeval): After evaluate().
        ids (Sequence): The ids of the N images, in the order of the columns of ``weights``.
        weights (ndarray): How often each counts, float32, (R, N).
        figure (Figure): Which mAP, none of recalls. Defaults to that over all thresholds.

    Returns:
        ndarray: (R,); 0 where a resample has no objects.
    """
    params = evaluation.params
    position = {image: column for column, image in enumerate(ids)}
    columns = [position[image] for image in params.imgIds]
    areas, images = len(params.areaRng), len(params.imgIds)
    thresholds = _thresholds(evaluation, figure)
    most = params.maxDets[_most(evaluation, figure)]
    total, classes = np.zeros(len(weights)), np.zeros(len(weights))
    for category in range(len(params.catIds)):
        start = (category * areas + figure.area) * images
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
        scores = np.concatenate([cell['dtScores'][:most] for _, cell in cells])
        order = np.argsort(-scores, kind='mergesort')
        image = np.repeat(
            [column for column, _ in cells], [len(cell['dtScores'][:most]) for _, cell in cells]
        )[order].astype(np.int64)
        matched, ignored = (
            np.concatenate([cell[key][thresholds, :most] for _, cell in cells], axis=1)[
                :, order
            ].astype(bool)
            for key in ('dtMatches', 'dtIgnore')
        )
        for hit, miss in zip(matched & ~ignored, ~matched & ~ignored, strict=True):
            ranking = Ranking(image, hit, miss, objects)
            ap, there = average_precision(ranking, weights, params.recThrs, np.float64)
            total += ap
            classes += there > 0
    return total / np.maximum(classes, 1)
