# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .base import MetricAdapter, Score, computed, is_class_of, results_of


class Guess(NamedTuple):
    """What top-1 accuracy needs to know of one image."""

    label: int
    right: bool


class AccuracyAdapter(MetricAdapter):
    """mmpretrain's ``Accuracy``: P is the share of images whose first guess is right.

    With the metric's ``thrs`` a guess has to score above that, as for the metric itself; of its
    other settings ``topk`` adds figures.
    """

    has_reference = True
    has_examples = True

    @staticmethod
    def keys(metric: Any) -> list[str]:
        """Top 1 of mmpretrain's own Accuracy, if that is among its figures, for one threshold."""
        if (
            not is_class_of(metric, 'mmpretrain.evaluation', 'Accuracy')
            or 1 not in metric.topk
            or len(metric.thrs) != 1
        ):
            return []
        return [f'{metric.prefix}/top1']

    def records(self, samples: Sequence[dict], batch: Any) -> list[Guess]:
        return [self._guess(sample) for sample in samples]

    def score(self, records: Sequence[Guess], weights: np.ndarray | None) -> Score:
        classes = list(self.metric.dataset_meta.get('classes') or ())
        # Counts of images are whole numbers, which float32 adds without loss.
        right = np.array([record.right for record in records], np.float32)
        labels = np.array([record.label for record in records])
        images = np.bincount(labels, minlength=len(classes))
        hits = np.bincount(labels, right, minlength=len(classes))
        value = float(right.sum()) / len(right)
        drawn = None
        if weights is not None:
            drawn = (weights @ right).astype(np.float64) / weights.sum(axis=1)
        return Score(
            value,
            {
                name: float(hits[label] / images[label]) if images[label] else None
                for label, name in enumerate(distinct(classes))
            },
            {self.key: value},
            drawn,
        )

    def check(self, samples: Sequence[dict], score: Score) -> None:
        expected = computed(self.metric, results_of(self.metric, samples, None))
        # In percent, and rounded to float32.
        percent = expected[self.key]
        if abs(percent - 100 * score.value) > 1e-3:
            raise RuntimeError(
                f'Accuracy of this mmpretrain computes {self.key} = {percent!r} % and '
                f'mmdet_adasap {100 * score.value!r} % from the same scores; use the mmpretrain '
                f'of requirements/'
            )

    def example(self, sample: dict) -> dict:
        """The class that was guessed, its score if there are any, and whether it counts."""
        label = int(sample['pred_label'].reshape(-1)[0])
        scores = sample.get('pred_score')
        return {
            'label': label,
            'score': None if scores is None else float(scores[label]),
            'right': self._guess(sample).right,
        }

    def _guess(self, sample: dict) -> Guess:
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
            return Guess(label[0], int(sample['pred_label']) == label[0])
        # As the metric looks for it: of equal scores the first depends on how many are asked for.
        best, labels = scores.float().topk(min(max(self.metric.topk), len(scores)))
        (threshold,) = self.metric.thrs
        counts = threshold is None or float(best[0]) > threshold
        return Guess(label[0], counts and int(labels[0]) == label[0])


def distinct(names: Sequence[str]) -> list[str]:
    """Names of classes, with the label where two have the same: ImageNet has two cranes."""
    names = list(map(str, names))
    times = Counter(names)
    return [f'{name} ({i})' if times[name] > 1 else name for i, name in enumerate(names)]
