# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Figures: P of a cell, of each class and of resampled images; mPC, rPC and mCE."""

from .accuracy import distinct
from .base import MetricAdapter, PlainMetricAdapter, Score
from .bootstrap import image_weights, interval
from .build import build_adapter
from .mpc import ALEXNET, SEVERITIES, alexnet, benchmark_corruptions, summarize, summary_of

__all__ = [
    'ALEXNET',
    'SEVERITIES',
    'MetricAdapter',
    'PlainMetricAdapter',
    'Score',
    'alexnet',
    'benchmark_corruptions',
    'build_adapter',
    'distinct',
    'image_weights',
    'interval',
    'summarize',
    'summary_of',
]
