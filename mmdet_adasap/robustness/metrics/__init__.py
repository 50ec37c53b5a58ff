# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Figures: P of a cell, of each class and of resampled images; mPC, rPC and mCE."""

from .accuracy import distinct
from .base import MetricScorer, Score, Scorer
from .bootstrap import image_weights, interval
from .build import build_scorer
from .mpc import ALEXNET, SEVERITIES, alexnet, benchmark_corruptions, summarize, summary_of

__all__ = [
    'ALEXNET',
    'SEVERITIES',
    'MetricScorer',
    'Score',
    'Scorer',
    'alexnet',
    'benchmark_corruptions',
    'build_scorer',
    'distinct',
    'image_weights',
    'interval',
    'summarize',
    'summary_of',
]
