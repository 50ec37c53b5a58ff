# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which adapter the metrics of a config get, and the one for any metric that has none."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.fileio import get_text

from .accuracy import AccuracyAdapter
from .base import MetricAdapter, Score, compute, process
from .coco import CocoAdapter
from .voc import VOCAdapter

ADAPTERS: tuple[type[MetricAdapter], ...] = (VOCAdapter, CocoAdapter, AccuracyAdapter)
"""Tried in this order for each metric of an evaluator. A new adapter needs a place here."""


def build_adapter(
    evaluator: Mapping | Sequence,
    dataset_meta: Mapping,
    key: str | None = None,
    scale: float | None = None,
    names: tuple[str, str, str] = ('test_evaluator', '--metric', '--scale'),
) -> MetricAdapter:
    """Choose and build the adapter for a config's test_evaluator.

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

    Returns:
        MetricAdapter: That of the first metric whose P is known, or of the one that ``key`` names.

    Raises:
        ValueError: If no metric has a P that is known, and no key names one, or the scale is not
            for it.
    """
    built = Evaluator(evaluator)
    built.dataset_meta = dict(dataset_meta)
    metrics = built.metrics
    where, key_name, scale_name = names
    if scale is not None and not 0 < scale < float('inf'):
        raise ValueError(f'{scale_name}: {scale!r} must be a number above 0, as 0.01 of percents')
    for metric in metrics:
        for kind in ADAPTERS:
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
        types = ', '.join(type(metric).__name__ for metric in metrics)
        raise ValueError(
            f'{where}={types}: it is not known which of its figures is P; name it with '
            f'{key_name}, as pascal_voc/mAP'
        )
    # One without a prefix may give any figure; those that say so come first.
    for metric in sorted(metrics, key=lambda metric: not metric.prefix):
        if key.startswith(f'{metric.prefix}/') or not metric.prefix:
            return PlainMetricAdapter(metric, key, scale)
    raise ValueError(
        f'{key_name} {key}: {where} has none of that prefix, only '
        f'{", ".join(str(metric.prefix) for metric in metrics)}'
    )


ANNOTATIONS = ('_coco_api', '_lvis_api')
"""Attributes of mmdet's metrics that hold the annotations; private, as of mmdet 3.3."""


PERCENT = {
    'mmdet': ('coco_panoptic',),
    'mmpretrain': ('accuracy', 'single-label', 'multi-label', 'retrieval'),
}
"""Metrics in percent, by their package and ``default_prefix``, as their code computes them."""


class PlainMetricAdapter(MetricAdapter):
    """Adapter of any metric: what its ``compute_metrics`` gives, rounded as it is, not resampled.

    Args:
        metric (BaseMetric): It must keep one result for each image.
        key (str): The name of P among what it gives.
        scale (float, optional): What P is multiplied with to be a fraction. Defaults to 0.01 for
            metrics that are known to be in percent (``PERCENT``) and to 1 for others.
    """

    resamples = False

    def __init__(self, metric: BaseMetric, key: str, scale: float | None = None) -> None:
        super().__init__(metric, key)
        self.scale = _default_scale(metric) if scale is None else scale
        # Without an ann_file the metric makes its annotations of the first images that it sees,
        # and would compare those of the next condition with them.
        self._temporary = [name for name in ANNOTATIONS if getattr(metric, name, metric) is None]
        self._images_in_file = _images_in_file(metric)

    def check_images(self, images: int) -> None:
        """Raise ValueError if the metric's annotation file has more images."""
        if images < self._images_in_file:
            raise ValueError(
                f'{self.key}: {type(self.metric).__name__} compares with all '
                f'{self._images_in_file} images of its ann_file, and {images} were tested; test '
                f'all of them, or choose another figure'
            )

    def per_image(self, samples: Sequence[dict], batch: Any) -> list:
        """Return what the metric itself keeps of each image."""
        self._reset_annotations()
        return process(self.metric, samples, batch)

    def score(self, per_image: Sequence, weights: np.ndarray | None) -> Score:
        """Return the metric's own figures, P among them; ``weights`` are not used.

        Raises:
            ValueError: If the metric does not give P, or P is no fraction.
        """
        self.check_images(len(per_image))
        self._reset_annotations()
        metrics = compute(self.metric, per_image)
        if not metrics and hasattr(self.metric, 'img_ids'):
            # mmdet's COCO and LVIS give nothing where a model finds nothing.
            return Score(0.0, {}, {}, None)
        if self.key not in metrics:
            raise ValueError(
                f'{type(self.metric).__name__} gives no {self.key!r}; name one of '
                f'{", ".join(metrics)}'
            )
        value = self.scale * metrics[self.key]
        # Percents computed in float32 may be a little above 100, by an ulp of 1e-5 or less.
        if not -1e-6 <= value <= 1 + 1e-6:
            raise ValueError(
                f'{self.key} is {metrics[self.key]!r}, and {self.scale} times that is no fraction '
                f'from 0 to 1, as P has to be; for a figure in percent the scale is 0.01'
            )
        return Score(min(max(value, 0.0), 1.0), {}, metrics, None)

    def _reset_annotations(self) -> None:
        for name in self._temporary:
            setattr(self.metric, name, None)
            self.metric.img_ids = None


def _default_scale(metric: BaseMetric) -> float:
    # Subclasses are in percent as well, whatever their own prefix is.
    percent = any(
        vars(kind).get('default_prefix') in PERCENT.get(kind.__module__.partition('.')[0], ())
        for kind in type(metric).__mro__
    )
    return 0.01 if percent else 1.0


def _images_in_file(metric: BaseMetric) -> int:
    """Return the number of images in a metric's annotation file; 0 for one without a file."""
    for name in ANNOTATIONS:
        if getattr(metric, name, None) is not None:
            return len(getattr(metric, name).imgs)
    file = getattr(metric, 'ann_file', None)
    if not file:
        return 0
    text = get_text(file, backend_args=getattr(metric, 'backend_args', None))
    try:
        return len(json.loads(text)['images'])
    except (ValueError, KeyError, TypeError):  # CrowdHuman's has a line for each
        return len(text.strip().splitlines())
