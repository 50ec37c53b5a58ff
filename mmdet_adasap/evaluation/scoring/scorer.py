# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What is particular to a metric, behind one small interface.

The rest of the evaluation knows images by number, models by name and P as a number. Another task
needs one more :class:`Scorer` and a line in ``build.py``.
"""

import contextlib
import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric


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


class Scorer(ABC):
    """One metric of a config's evaluator.

    Args:
        metric (BaseMetric): The metric, which knows its dataset.
        key (str): Name of P among the metric's, as 'pascal_voc/mAP'.

    Attributes:
        key (str): The same.
        resamples (bool): Whether :meth:`score` can resample.
        checks (bool): Whether :meth:`check` compares.
    """

    key: str
    resamples = True
    checks = False

    def __init__(self, metric: BaseMetric, key: str) -> None:
        self.metric = metric
        self.key = key

    @staticmethod
    def keys(metric: BaseMetric) -> Sequence[str]:
        """The figures of a metric that can be P here, the one that its task takes first."""
        return ()

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


class MetricScorer(Scorer):
    """Any metric, by what its own ``compute_metrics`` gives: rounded as it rounds, no resampling.

    Args:
        metric (BaseMetric): It must keep one result for each image.
        key (str): The name of P among what it gives.
        scale (float): What P is multiplied with to be a fraction. Defaults to 1.
    """

    resamples = False

    def __init__(self, metric: BaseMetric, key: str, scale: float = 1.0) -> None:
        super().__init__(metric, key)
        self.scale = scale

    def records(self, samples: Sequence[dict], batch: Any) -> list:
        return results_of(self.metric, samples, batch)

    def score(self, records: Sequence, weights: np.ndarray | None) -> Score:
        metrics = computed(self.metric, records)
        if self.key not in metrics:
            raise ValueError(
                f'test_evaluator gives no {self.key!r}; name one of {", ".join(metrics)}'
            )
        return Score(self.scale * metrics[self.key], {}, metrics, None)


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


def computed(metric: BaseMetric, results: Sequence) -> dict[str, float]:
    """What a metric computes from its results, by full names, without what it prints."""
    with silent():
        metrics = metric.compute_metrics(list(results))
    prefix = f'{metric.prefix}/' if metric.prefix else ''
    return {
        prefix + name: float(value)
        for name, value in metrics.items()
        if np.ndim(value) == 0 and not isinstance(value, str)
    }


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
