# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Top-1 accuracy of classifiers, of each class and of resampled images."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .base import MetricAdapter, Score, compute, process


class Top1(NamedTuple):
    """The result for one image.

    Attributes:
        label (int): Its true class.
        correct (bool): Whether the best prediction is that class.
    """

    label: int
    correct: bool


class AccuracyAdapter(MetricAdapter):
    """Adapter of mmpretrain's ``Accuracy``: P is top-1 accuracy, as a fraction, resampled.

    With the metric's ``thrs`` a prediction has to score above that, as for the metric itself.
    """

    metric_class = 'mmpretrain.evaluation', 'Accuracy'
    has_reference = True
    has_examples = True

    @staticmethod
    def keys(metric: Any) -> list[str]:
        """Return top 1 of mmpretrain's Accuracy, if it is computed for one threshold."""
        if 1 not in metric.topk or len(metric.thrs) != 1:
            return []
        return [f'{metric.prefix}/top1']

    def per_image(self, samples: Sequence[dict], batch: Any) -> list[Top1]:
        """Return label and correctness of each image.

        Raises:
            ValueError: If an image has no label, or several.
        """
        return [self._top1(sample) for sample in samples]

    def score(self, per_image: Sequence[Top1], weights: np.ndarray | None) -> Score:
        """Compute the accuracy, also of each class and each resample."""
        classes = list(self.metric.dataset_meta.get('classes') or ())
        # Counts of images are whole numbers, which float32 adds exactly up to 2^24.
        correct = np.array([image.correct for image in per_image], np.float32)
        labels = np.array([image.label for image in per_image])
        images = np.bincount(labels, minlength=len(classes))
        hits = np.bincount(labels, correct, minlength=len(classes))
        value = float(correct.sum()) / len(correct)
        resampled = None
        if weights is not None:
            resampled = (weights @ correct).astype(np.float64) / weights.sum(axis=1)
        return Score(
            value,
            {
                name: float(hits[label] / images[label]) if images[label] else None
                for label, name in enumerate(distinct_names(classes))
            },
            {self.key: value},
            resampled,
        )

    def check(self, samples: Sequence[dict], score: Score) -> None:
        """Raise RuntimeError if Accuracy computes another value from the same scores."""
        expected = compute(self.metric, process(self.metric, samples, None))
        # In percent and computed in float32, which has errors of 1e-5 near 100. One image of
        # ImageNet's 50000 is 2e-3.
        percent = expected[self.key]
        if abs(percent - 100 * score.value) > 1e-3:
            raise RuntimeError(
                f'Accuracy of this mmpretrain computes {self.key} = {percent!r} % and '
                f'mmdet_adasap {100 * score.value!r} % from the same scores; use the mmpretrain '
                f'of requirements/'
            )

    def example(self, sample: dict) -> dict:
        """Return the predicted class, its score if there are any, and whether it is correct."""
        label = int(sample['pred_label'].reshape(-1)[0])
        scores = sample.get('pred_score')
        return {
            'label': label,
            'score': None if scores is None else float(scores[label]),
            'right': self._top1(sample).correct,
        }

    def _top1(self, sample: dict) -> Top1:
        if 'gt_label' not in sample:
            raise ValueError(
                'the dataset gives no gt_label, which Accuracy compares with: test on a split '
                "that has labels, and end the pipeline with dict(type='PackInputs')"
            )
        label = sample['gt_label'].reshape(-1).tolist()
        if len(label) != 1:
            raise ValueError(f'an image has {len(label)} labels, and Accuracy is for one each')
        scores = sample.get('pred_score')
        if scores is None:
            return Top1(label[0], int(sample['pred_label']) == label[0])
        # As in Accuracy.calculate: which of equal scores comes first depends on k of topk.
        best, labels = scores.float().topk(min(max(self.metric.topk), len(scores)))
        (threshold,) = self.metric.thrs
        counts = threshold is None or float(best[0]) > threshold
        return Top1(label[0], counts and int(labels[0]) == label[0])


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return names of classes, with the label where two are equal: ImageNet has two cranes."""
    names = list(map(str, names))
    counts = Counter(names)
    return [f'{name} ({i})' if counts[name] > 1 else name for i, name in enumerate(names)]
