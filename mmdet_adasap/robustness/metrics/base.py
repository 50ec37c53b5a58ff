# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What is particular to a metric, behind one small interface.

The rest of the evaluation knows images by number, models by name and P as a number. Another task
needs one more :class:`MetricAdapter` and a line in ``build.py``.
"""

import contextlib
import io
import json
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_text


class Score(NamedTuple):
    """How a model does on a set of images.

    Attributes:
        value (float): P, unrounded, a fraction.
        per_class (dict[str, float | None]): P of each class; None for one without objects. Empty
            where the metric does not say.
        metrics (dict[str, float]): All that the metric says, as it says it.
        resampled (ndarray | None): P for each row of weights, (R,); None where that is unknown.
    """

    value: float
    per_class: dict[str, float | None]
    metrics: dict[str, float]
    resampled: np.ndarray | None


class MetricAdapter(ABC):
    """One metric of a config's evaluator.

    Args:
        metric (BaseMetric): The metric, which knows its dataset.
        key (str): Name of P among the metric's, as 'pascal_voc/mAP'.

    Attributes:
        key (str): The same.
        resamples (bool): Whether :meth:`score` can resample.
        has_reference (bool): Whether :meth:`check` compares.
        has_examples (bool): Whether :meth:`example` gives anything.
    """

    key: str
    resamples = True
    has_reference = False
    has_examples = False

    def __init__(self, metric: BaseMetric, key: str) -> None:
        self.metric = metric
        self.key = key

    @staticmethod
    def keys(metric: BaseMetric) -> Sequence[str]:
        """The figures of a metric that can be P here, the one that its task takes first."""
        return ()

    def check_images(self, images: int) -> None:
        """Refuse to be used for so many images, before they are tested. Defaults to any number.

        Raises:
            ValueError: If the metric cannot leave out the others.
        """

    @abstractmethod
    def records(self, samples: Sequence[dict], batch: Any) -> list:
        """What is kept of each image of a batch: plain data and arrays, to be sent and scored.

        Args:
            samples (Sequence[dict]): What the model gave, as dicts.
            batch (Any): What it was given.
        """

    @abstractmethod
    def score(self, records: Sequence, weights: np.ndarray | None) -> Score:
        """P of images, from their records in the order of the dataset.

        Args:
            records (Sequence): Those of N images.
            weights (ndarray | None): How often each image counts in each resample, float32,
                (R, N).
        """

    def check(self, samples: Sequence[dict], score: Score) -> None:
        """Compare with the metric itself; called once, with the clean cell.

        Raises:
            RuntimeError: If the metric gives another P.
        """

    def example(self, sample: dict) -> dict:
        """What a report shows of one image, as lists and numbers. Defaults to nothing."""
        return {}


class PlainMetricAdapter(MetricAdapter):
    """Any metric, by what its own ``compute_metrics`` gives: rounded as it rounds, no resampling.

    Args:
        metric (BaseMetric): It must keep one result for each image.
        key (str): The name of P among what it gives.
        scale (float, optional): What P is multiplied with to be a fraction. Defaults to 0.01 for
            metrics that are known to be in percent (``PERCENT``) and to 1 for others.
    """

    resamples = False

    def __init__(self, metric: BaseMetric, key: str, scale: float | None = None) -> None:
        super().__init__(metric, key)
        self.scale = _usual_scale(metric) if scale is None else scale
        # Without a file they make one of the first images that they see.
        self._made = [name for name in ANNOTATIONS if getattr(metric, name, metric) is None]
        self._of_file = _images_of_file(metric)

    def check_images(self, images: int) -> None:
        if images < self._of_file:
            raise ValueError(
                f'{self.key}: {type(self.metric).__name__} compares with all {self._of_file} '
                f'images of its ann_file, and {images} were tested; test all of them, or choose '
                f'another figure'
            )

    def records(self, samples: Sequence[dict], batch: Any) -> list:
        self._forget()
        return results_of(self.metric, samples, batch)

    def score(self, records: Sequence, weights: np.ndarray | None) -> Score:
        self.check_images(len(records))
        self._forget()
        metrics = computed(self.metric, records)
        if not metrics and hasattr(self.metric, 'img_ids'):
            # mmdet's COCO and LVIS give nothing where a model finds nothing.
            return Score(0.0, {}, {}, None)
        if self.key not in metrics:
            raise ValueError(
                f'{type(self.metric).__name__} gives no {self.key!r}; name one of '
                f'{", ".join(metrics)}'
            )
        value = self.scale * metrics[self.key]
        # Percents of float32 may be a little above 100.
        if not -1e-6 <= value <= 1 + 1e-6:
            raise ValueError(
                f'{self.key} is {metrics[self.key]!r}, and {self.scale} times that is no fraction '
                f'from 0 to 1, as P has to be; for a figure in percent the scale is 0.01'
            )
        return Score(min(max(value, 0.0), 1.0), {}, metrics, None)

    def _forget(self) -> None:
        for name in self._made:
            setattr(self.metric, name, None)
            self.metric.img_ids = None


ANNOTATIONS = ('_coco_api', '_lvis_api')
"""What metrics of mmdet call the annotations that they compare with."""
PERCENT = {
    'mmdet': ('coco_panoptic',),
    'mmpretrain': ('accuracy', 'single-label', 'multi-label', 'retrieval'),
}
"""Metrics in percent, by their package and ``default_prefix``."""


def _usual_scale(metric: BaseMetric) -> float:
    percent = any(
        vars(kind).get('default_prefix') in PERCENT.get(kind.__module__.partition('.')[0], ())
        for kind in type(metric).__mro__
    )
    return 0.01 if percent else 1.0


def _images_of_file(metric: BaseMetric) -> int:
    """How many images the annotation file of a metric has; 0 for one without a file."""
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


def results_of(metric: BaseMetric, samples: Sequence[dict], batch: Any) -> list:
    """What a metric keeps of each image of a batch.

    Raises:
        ValueError: If it does not keep one result for each.
    """
    metric.results.clear()
    metric.process(batch, list(samples))
    results = list(metric.results)
    metric.results.clear()
    if len(results) != len(samples):
        raise ValueError(
            f'{type(metric).__name__} keeps {len(results)} results of {len(samples)} images; one '
            f'for each is needed to put processes together'
        )
    return results


def is_class_of(metric: object, library: str, name: str) -> bool:
    """Whether a metric is of exactly a class of a library, which is not imported to see that."""
    return type(metric) is getattr(sys.modules.get(library), name, None)


def computed(metric: BaseMetric, results: Sequence) -> dict[str, float]:
    """What a metric computes from its results, by full names, without what it prints."""
    with silent(), _in_threads():
        metrics = metric.compute_metrics(list(results))
    prefix = f'{metric.prefix}/' if metric.prefix else ''
    return {
        prefix + name: float(value)
        for name, value in metrics.items()
        if np.ndim(value) == 0 and not isinstance(value, str)
    }


@contextlib.contextmanager
def _in_threads() -> Iterator[None]:
    """mmdet's eval_map forks four processes for each figure, beside those that load images."""
    if 'mmdet.evaluation' not in sys.modules:
        yield
        return
    from mmdet.evaluation.functional import mean_ap

    with mock.patch.object(mean_ap, 'Pool', ThreadPool):
        yield


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the tables that metrics print and log off the screen."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
