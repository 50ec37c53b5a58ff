# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence

from mmengine.evaluator import Evaluator

from .accuracy import AccuracyAdapter
from .base import MetricAdapter, PlainMetricAdapter
from .coco import CocoAdapter
from .voc import VOCAdapter

SCORERS: tuple[type[MetricAdapter], ...] = (VOCAdapter, CocoAdapter, AccuracyAdapter)
"""Tried in this order for each metric of an evaluator."""


def build_adapter(
    evaluator: Mapping | Sequence,
    dataset_meta: Mapping,
    key: str | None = None,
    scale: float | None = None,
    names: tuple[str, str, str] = ('test_evaluator', '--metric', '--scale'),
) -> MetricAdapter:
    """Choose and build what scores a config's test_evaluator.

    Args:
        evaluator (Mapping | Sequence): The config's test_evaluator: a metric or a list of them.
        dataset_meta (Mapping): The metainfo of the test set.
        key (str, optional): Name of P among the metrics, as 'coco/bbox_mAP_50', where it is not
            what the task's benchmark takes. Those of VOCMetric, CocoMetric and Accuracy that are
            known are unrounded fractions; any other is used as the metric gives it.
        scale (float, optional): What a figure that is used as the metric gives it is multiplied
            with to be a fraction. Defaults to 0.01 for those that are known to be in percent, and
            to 1.
        names (tuple[str, str, str]): What the user calls evaluator, key and scale, for messages.

    Raises:
        ValueError: If no metric has a P that is known, and no key names one, or the scale is not
            for it.
    """
    built = Evaluator(evaluator)
    built.dataset_meta = dict(dataset_meta)
    where, key_name, scale_name = names
    if scale is not None and not 0 < scale < float('inf'):
        raise ValueError(f'{scale_name}: {scale!r} must be a number above 0, as 0.01 of percents')
    for metric in built.metrics:
        for kind in SCORERS:
            known = kind.keys(metric)
            if not known or key not in (None, *known):
                continue
            if scale is not None:
                raise ValueError(
                    f'{scale_name} is for figures that are used as the metric gives them; '
                    f'{key or known[0]} is a fraction here: leave it out'
                )
            return kind(metric, key or known[0])
    if key is None:
        types = ', '.join(type(metric).__name__ for metric in built.metrics)
        raise ValueError(
            f'{where}={types}: it is not known which of its figures is P; name it with '
            f'{key_name}, as pascal_voc/mAP'
        )
    # One without a prefix may give any figure; those that say so come first.
    for metric in sorted(built.metrics, key=lambda metric: not metric.prefix):
        if key.startswith(f'{metric.prefix}/') or not metric.prefix:
            return PlainMetricAdapter(metric, key, scale)
    raise ValueError(
        f'{key_name} {key}: {where} has none of that prefix, only '
        f'{", ".join(str(metric.prefix) for metric in built.metrics)}'
    )
