# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence

from mmengine.evaluator import Evaluator

from ...registration import mmdet_works, mmpretrain_works
from .accuracy import AccuracyScorer
from .coco import CocoScorer
from .scorer import MetricScorer, Scorer
from .voc import VOCScorer

OF_MMDET: tuple[type[Scorer], ...] = (VOCScorer, CocoScorer)
OF_MMPRETRAIN: tuple[type[Scorer], ...] = (AccuracyScorer,)
"""Tried in this order for each metric of an evaluator."""


def build_scorer(
    evaluator: Mapping | Sequence, dataset_meta: Mapping, key: str | None = None
) -> Scorer:
    """Choose and build what scores a config's test_evaluator.

    Args:
        evaluator (Mapping | Sequence): The config's test_evaluator: a metric or a list of them.
        dataset_meta (Mapping): The metainfo of the test set.
        key (str, optional): Name of P among the metrics, as 'coco/bbox_mAP_50', where it is not
            what the task's benchmark takes. Those of VOCMetric, CocoMetric and Accuracy that are
            known are unrounded fractions; any other is used as the metric gives it.

    Raises:
        ValueError: If no metric has a P that is known, and no key names one.
    """
    built = Evaluator(evaluator)
    built.dataset_meta = dict(dataset_meta)
    kinds = (OF_MMDET if mmdet_works() else ()) + (OF_MMPRETRAIN if mmpretrain_works() else ())
    for metric in built.metrics:
        for kind in kinds:
            known = kind.keys(metric)
            if known and key in (None, *known):
                return kind(metric, key or known[0])
    if key is None:
        names = ', '.join(type(metric).__name__ for metric in built.metrics)
        raise ValueError(
            f'test_evaluator={names}: it is not known which of its figures is P; name it with '
            f'--metric, as pascal_voc/mAP'
        )
    for metric in built.metrics:
        if key.startswith(f'{metric.prefix}/') or not metric.prefix:
            return MetricScorer(metric, key)
    raise ValueError(
        f'--metric {key}: test_evaluator has none of that prefix, only '
        f'{", ".join(str(metric.prefix) for metric in built.metrics)}'
    )
