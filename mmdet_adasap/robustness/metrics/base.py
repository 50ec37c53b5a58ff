# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The interface between metrics of OpenMMLab and the benchmark, and what its adapters share.

The benchmark knows images by number, models by name and P, the performance, as a number. Another
task needs one more :class:`MetricAdapter` and a place in ``ADAPTERS`` of ``adapters.py``.
"""

import contextlib
import io
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric

from ...errors import one_line
from ...integration import quiet_logging


class Score(NamedTuple):
    """The performance of a model on a set of images.

    Attributes:
        value (float): P, unrounded, a fraction.
        per_class (dict[str, float | None]): P of each class; None for one without objects. Empty
            where the metric does not give it.
        metrics (dict[str, float]): All figures of the metric, as it gives them.
        resampled (ndarray | None): P for each row of weights, (R,); None where that is unknown.
    """

    value: float
    per_class: dict[str, float | None]
    metrics: dict[str, float]
    resampled: np.ndarray | None


class MetricAdapter(ABC):
    """One metric of a config's evaluator, as the benchmark uses it.

    Args:
        metric (BaseMetric): The metric, which knows its dataset.
        key (str): Name of P among the metric's, as 'pascal_voc/mAP'.

    Attributes:
        metric_class (tuple[str, str]): Module and name of the class that the adapter is for.
        metric (BaseMetric): The metric.
        key (str): Name of P.
        others (tuple[str, ...]): P of other metrics of the evaluator, which were not taken.
        resamples (bool): Whether :meth:`score` can resample.
        has_reference (bool): Whether :meth:`check` compares.
        has_examples (bool): Whether :meth:`example` gives anything.
    """

    metric_class: tuple[str, str] = ('', '')
    key: str
    others: tuple[str, ...] = ()
    resamples = True
    has_reference = False
    has_examples = False

    def __init__(self, metric: BaseMetric, key: str) -> None:
        self.metric = metric
        self.key = key

    @staticmethod
    def keys(metric: BaseMetric) -> Sequence[str]:
        """Return the figures of a metric that can be P, that of the task's benchmark first.

        Args:
            metric (BaseMetric): Of the class ``metric_class``, or of one that derives from it.
        """
        return ()

    def check_images(self, images: int) -> None:
        """Raise ValueError, before anything is tested, if so many images are too few.

        Raises:
            ValueError: If the metric cannot leave out the others. By default any number is right.
        """

    def check_annotations(self, infos: Sequence[Mapping]) -> None:
        """Raise ValueError, before anything is tested, if the metric compares with other images.

        Args:
            infos (Sequence[Mapping]): The dataset's infos of all images that will be tested.

        Raises:
            ValueError: If its annotation file is of others. By default it has none.
        """

    @abstractmethod
    def per_image(self, samples: Sequence[dict], batch: Any) -> list:
        """Return what :meth:`score` needs of each image of a batch.

        Args:
            samples (Sequence[dict]): Outputs of the model, as dicts.
            batch (Any): Its inputs.

        Returns:
            list: Plain data and arrays, which can be sent to another process.
        """

    @abstractmethod
    def score(self, per_image: Sequence, weights: np.ndarray | None) -> Score:
        """Compute P of a set of images.

        Args:
            per_image (Sequence): What :meth:`per_image` gave for N images, in the order of the
                dataset.
            weights (ndarray | None): How often each image counts in each resample, float32,
                (R, N).

        Returns:
            Score: P, also for each resample where ``weights`` are given.
        """

    def check(self, samples: Sequence[dict], score: Score) -> None:
        """Compare a score with the metric itself; called once, on the clean images.

        Args:
            samples (Sequence[dict]): Outputs of the model for all images, as dicts.
            score (Score): What :meth:`score` computed from them.

        Raises:
            RuntimeError: If the metric gives another P.
        """

    def example(self, sample: dict) -> dict:
        """Return what a report shows of one image, as lists and numbers. Defaults to nothing."""
        return {}


ANNOTATIONS = ('_coco_api', '_lvis_api')
"""Attributes of mmdet's metrics that hold the annotations; private, as of mmdet 3.3."""


def check_annotations(metric: BaseMetric, infos: Sequence[Mapping]) -> None:
    """Raise ValueError if a metric's annotation file, if it has one, is not of these images.

    With another file than the dataset's a metric compares with objects of other images that have
    the same ids, or leaves images out.

    Args:
        metric (BaseMetric): The metric.
        infos (Sequence[Mapping]): The dataset's infos of all images that will be tested.
    """
    apis = [getattr(metric, name, None) for name in ANNOTATIONS]
    listed = next((api.imgs for api in apis if api is not None), None)
    if listed is None:
        return
    where = f'ann_file of {type(metric).__name__}'
    remedy = 'give it the annotation file of the test set'
    lacking = [info['img_id'] for info in infos if info['img_id'] not in listed]
    if lacking:
        raise ValueError(
            f'{where} lacks {len(lacking)} of {len(infos)} images tested (image id '
            f'{lacking[0]!r}): {remedy}'
        )
    for info in infos:
        there, here = listed[info['img_id']].get('file_name'), info.get('img_path')
        # Without folder and ending: the same images may lie elsewhere in another format.
        if there and here and PurePath(there).stem != PurePath(here).stem:
            raise ValueError(
                f'{where}: image id {info["img_id"]!r} is {there} there and {here} in the test '
                f'set: {remedy}'
            )


def process(metric: BaseMetric, samples: Sequence[dict], batch: Any) -> list:
    """Return the results that a metric's ``process`` adds for each image of a batch.

    Args:
        metric (BaseMetric): The metric; its list of results is empty afterwards.
        samples (Sequence[dict]): Outputs of a model, as dicts.
        batch (Any): Its inputs.

    Returns:
        list: One result for each image.

    Raises:
        ValueError: If the metric does not add one result for each.
    """
    # Metrics collect results of all batches until they are evaluated, and this needs one batch.
    metric.results.clear()
    with _errors_named(metric):
        metric.process(batch, list(samples))
    results = list(metric.results)
    metric.results.clear()
    if len(results) != len(samples):
        raise ValueError(
            f'{type(metric).__name__} keeps {len(results)} results of {len(samples)} images; one '
            f'for each is needed to put processes together'
        )
    return results


def compute(metric: BaseMetric, results: Sequence) -> dict[str, float]:
    """Return the figures that a metric computes, by full names, without printing them."""
    with silent(), _eval_map_in_threads(), _errors_named(metric):
        metrics = metric.compute_metrics(list(results))
    prefix = f'{metric.prefix}/' if metric.prefix else ''
    return {
        prefix + name: float(value)
        for name, value in metrics.items()
        # Some metrics add texts and lists, which are no figures.
        if np.ndim(value) == 0 and not isinstance(value, str)
    }


@contextlib.contextmanager
def _errors_named(metric: BaseMetric) -> Iterator[None]:
    """Let an error that a metric did not mean for users say which metric it was."""
    try:
        yield
    except (AssertionError, AttributeError, LookupError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f'{type(metric).__name__} cannot be computed ({one_line(error)}): the model or the '
            f'pipeline may not give what it compares; choose another metric'
        ) from error


@contextlib.contextmanager
def _eval_map_in_threads() -> Iterator[None]:
    """Let mmdet's eval_map use threads instead of processes.

    eval_map of mmdet 3.3 forks four processes for each figure, beside those that load images. It
    has no setting for one, so its Pool is replaced.
    """
    if 'mmdet.evaluation' not in sys.modules:
        yield
        return
    from mmdet.evaluation.functional import mean_ap

    with replaced(mean_ap, 'Pool', ThreadPool):
        yield


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module or class for a while, whatever happens meanwhile.

    Args:
        owner (object): The module or class.
        name (str): Name of the attribute.
        value (object): Its value inside the with block.
    """
    # A class may inherit the attribute. To put it back then means to delete it from the class.
    inherited = name not in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Suppress the tables that metrics print and log."""
    # Metrics log at INFO; warnings of other code are suppressed as well, errors are not.
    with quiet_logging(logging.WARNING), contextlib.redirect_stdout(io.StringIO()):
        yield


def detection_example(sample: dict, at_most: int = 30) -> dict:
    """Return the best detections of an image, for a report.

    Args:
        sample (dict): Output of a detector.
        at_most (int): How many. Defaults to 30: a picture with more boxes cannot be read.

    Returns:
        dict: 'bboxes' (x1, y1, x2, y2), 'scores' and 'labels', lists. Boxes and scores that are
        not finite, which a model gives that diverged, are left out.
    """
    found = sample['pred_instances']
    scores, boxes = to_numpy(found['scores']), to_numpy(found['bboxes'])
    finite = np.flatnonzero(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    # Stable, so that a report is the same on every machine.
    best = finite[np.argsort(-scores[finite], kind='stable')[:at_most]]
    return {
        'bboxes': boxes[best].astype(float).round(2).tolist(),
        'scores': scores[best].astype(float).round(4).tolist(),
        'labels': to_numpy(found['labels'])[best].astype(int).tolist(),
    }


def to_numpy(value: Any) -> np.ndarray:
    """Convert a tensor, or boxes of mmdet around one, to an array."""
    return getattr(value, 'tensor', value).detach().cpu().numpy()
