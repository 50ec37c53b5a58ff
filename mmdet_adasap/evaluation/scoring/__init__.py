# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What is particular to a metric: P of a cell, of each class, and of resampled images."""

from .build import build_scorer
from .scorer import MetricScorer, Score, Scorer

__all__ = ['MetricScorer', 'Score', 'Scorer', 'build_scorer']
