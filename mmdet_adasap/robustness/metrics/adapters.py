# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which adapter the metrics of a config get, and the one for any metric that has none."""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric, DumpResults
from mmengine.fileio import get_text

from .accuracy import AccuracyAdapter
from .base import ANNOTATIONS, MetricAdapter, Score, check_annotations, compute, process
from .coco import CocoAdapter
from .evaluators import Names, build_metrics
from .voc import VOCAdapter

ADAPTERS: tuple[type[MetricAdapter], ...] = (VOCAdapter, CocoAdapter, AccuracyAdapter)
"""Tried in this order for each metric of an evaluator. A new adapter needs a place here."""


def build_adapter(
    evaluator: Mapping | Sequence,
    dataset_meta: Mapping,
    key: str | None = None,
    scale: float | None = None,
    names: Names = Names(),  # noqa: B008 - a NamedTuple cannot change
) -> MetricAdapter:
    """Choose and build the adapter for a config's test_evaluator.

    Args:
        evaluator (Mapping | Sequence): The config's test_evaluator: a metric or a list of them,
            which see all images of the test set.
        dataset_meta (Mapping): The metainfo of the test set.
        key (str, optional): Name of P among the metrics, as 'coco/bbox_mAP_50', where it is not
            what the task's benchmark takes. Those of VOCMetric, CocoMetric and Accuracy that are
            known are unrounded fractions; any other is used as the metric gives it.
        scale (float, optional): What a figure that is used as the metric gives it is multiplied
            with to be a fraction. Defaults to 0.01 for those that are known to be in percent, and
            to 1.
        names (Names): What the user calls evaluator, key and scale, for messages.

    Returns:
        MetricAdapter: That of the first metric whose P is known, or of the one that ``key`` names.

    Raises:
        ValueError: If no metric has a P that is known, and no key names one, two metrics give P,
            or the scale is not for it.
    """
    metrics = build_metrics(evaluator, dataset_meta, names)
    if scale is not None and not 0 < scale < float('inf'):
        raise ValueError(f'{names.scale}: {scale!r} must be a number above 0, as 0.01 of percents')
    known = _known_figures(metrics)
    usual = [one.keys[0] for one in known if one.exact]
    if key is None and not usual:
        types = ', '.join(type(metric).__name__ for metric in metrics)
        raise ValueError(
            f'{names.evaluator}={types}: it is not known which of its figures is P; name it with '
            f'{names.metric}, as pascal_voc/mAP'
        )
    key = key or usual[0]
    givers = [one for one in known if key in one.keys]
    chosen = next((one for one in givers if one.exact), None)
    if chosen is None:
        return _plain_adapter(metrics, key, scale, names)
    if len(givers) > 1:
        raise _two_givers(key, [one.metric for one in givers], names)
    if scale is not None:
        raise ValueError(
            f'{names.scale} is for figures that are used as the metric gives them; '
            f'{key} is a fraction here: leave it out'
        )
    adapter = chosen.kind(chosen.metric, key)
    adapter.others = tuple(other for other in usual if other != key)
    return adapter


class _Known(NamedTuple):
    """A metric of a class that has an adapter, or of one that derives from it."""

    metric: BaseMetric
    kind: type[MetricAdapter]
    keys: Sequence[str]
    # A class that derives from it may compute something else under the same name.
    exact: bool


def _known_figures(metrics: Sequence[BaseMetric]) -> list[_Known]:
    """Return the metrics whose figures are known by name, in the order of the evaluator."""
    found = []
    for metric in metrics:
        for kind in ADAPTERS:
            module, name = kind.metric_class
            # The library of a metric is imported, so others need not be.
            known = getattr(sys.modules.get(module), name, None)
            if known is None or not isinstance(metric, known):
                continue
            keys, exact = [], type(metric) is known
            # A class that derives from it may have no such attributes.
            with contextlib.nullcontext() if exact else contextlib.suppress(AttributeError):
                keys = kind.keys(metric)
            if keys:
                found.append(_Known(metric, kind, keys, exact))
    return found


def _plain_adapter(
    metrics: Sequence[BaseMetric], key: str, scale: float | None, names: Names
) -> MetricAdapter:
    """Return the adapter of a figure by its name alone; several metrics may have its prefix."""
    fitting = [metric for metric in metrics if key.startswith(f'{metric.prefix}/')]
    if not fitting:
        # One without a prefix may give any figure. DumpResults gives none, and writes a file.
        fitting = [m for m in metrics if not m.prefix and not isinstance(m, DumpResults)]
    if not fitting:
        raise ValueError(
            f'{names.metric} {key}: {names.evaluator} has none of that prefix, only '
            f'{", ".join(str(metric.prefix) for metric in metrics)}'
        )
    adapters = [PlainMetricAdapter(metric, key, scale) for metric in fitting]
    return adapters[0] if len(adapters) == 1 else AnyMetricAdapter(adapters, names)


def _two_givers(key: str, metrics: Sequence[BaseMetric], names: Names) -> ValueError:
    kinds = ' and '.join(type(metric).__name__ for metric in metrics)
    return ValueError(
        f'{names.evaluator}: {kinds} both give {key}, and P is one of them; set prefix of each to '
        f'a name of its own, as prefix="first"'
    )


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

    def check_annotations(self, infos: Sequence[Mapping]) -> None:
        """Raise ValueError if the metric's annotation file is of other images."""
        check_annotations(self.metric, infos)

    def score(self, per_image: Sequence, weights: np.ndarray | None) -> Score:
        """Return the metric's own figures, P among them; ``weights`` are not used.

        Raises:
            ValueError: If the metric does not give P, or P is no fraction.
        """
        return self.to_score(self.figures(per_image))

    def figures(self, per_image: Sequence) -> dict[str, float]:
        """Return all figures of the metric by full names, with P = 0 where it finds nothing."""
        self.check_images(len(per_image))
        self._reset_annotations()
        metrics = compute(self.metric, per_image)
        if not metrics and hasattr(self.metric, 'img_ids'):
            # mmdet's COCO and LVIS give nothing where a model finds nothing.
            return {self.key: 0.0}
        return metrics

    def to_score(self, metrics: dict[str, float]) -> Score:
        """Return figures as a score.

        Raises:
            ValueError: If P is not among them, or no fraction.
        """
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


class AnyMetricAdapter(MetricAdapter):
    """Adapter of several metrics of one prefix, of which one gives P.

    mmpretrain's multi-label VOC has two that say 'multi-label', and only computing tells which
    one gives 'multi-label/mAP'.

    Args:
        adapters (Sequence[PlainMetricAdapter]): Theirs, of the same key.
        names (Names): For messages.
    """

    resamples = False

    def __init__(self, adapters: Sequence[PlainMetricAdapter], names: Names) -> None:
        super().__init__(adapters[0].metric, adapters[0].key)
        self.adapters = list(adapters)
        self.names = names

    def check_images(self, images: int) -> None:
        """Raise ValueError if an annotation file has more images."""
        for adapter in self.adapters:
            adapter.check_images(images)

    def check_annotations(self, infos: Sequence[Mapping]) -> None:
        """Raise ValueError if an annotation file is of other images."""
        for adapter in self.adapters:
            adapter.check_annotations(infos)

    def per_image(self, samples: Sequence[dict], batch: Any) -> list[tuple]:
        """Return what each metric keeps of each image."""
        kept = [adapter.per_image(samples, batch) for adapter in self.adapters]
        return list(zip(*kept, strict=True))

    def score(self, per_image: Sequence[tuple], weights: np.ndarray | None) -> Score:
        """Return the figures of the metric that gives P.

        Raises:
            ValueError: If none or several give it, or it is no fraction.
        """
        figures = [
            adapter.figures([kept[number] for kept in per_image])
            for number, adapter in enumerate(self.adapters)
        ]
        pairs = zip(self.adapters, figures, strict=True)
        givers = [(adapter, found) for adapter, found in pairs if self.key in found]
        if len(givers) > 1:
            raise _two_givers(self.key, [adapter.metric for adapter, _ in givers], self.names)
        if not givers:
            kinds = ' and '.join(type(adapter.metric).__name__ for adapter in self.adapters)
            known = ', '.join(name for found in figures for name in found)
            raise ValueError(f'{kinds} give no {self.key!r}; name one of {known}')
        ((adapter, found),) = givers
        return adapter.to_score(found)


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
