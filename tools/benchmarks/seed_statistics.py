# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What several seeds say: means with their spread, and paired differences with an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation of a sample."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0
    return f'{np.mean(values):.3f} ± {deviation:.3f}'


class Interval(NamedTuple):
    """A mean, and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def paired_interval(values: Sequence[float], reference: Sequence[float]) -> Interval:
    """Return the mean difference of pairs, with Student's t interval.

    Args:
        values (Sequence[float]): Of an arm, seed by seed.
        reference (Sequence[float]): Of the arm that it is compared with, for the same seeds.

    Returns:
        Interval: Without bounds where there is one pair, which says nothing of the spread.
    """
    differences = np.subtract(values, reference)
    mean, pairs = float(differences.mean()), len(differences)
    if pairs < 2:
        return Interval(mean, -np.inf, np.inf)
    error = differences.std(ddof=1) / np.sqrt(pairs)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1) * error)
    return Interval(mean, mean - half, mean + half)
