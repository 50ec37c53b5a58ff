# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Performance P of a condition, of each class and of resampled images; mPC, rPC and mCE."""

from .accuracy import distinct_names
from .adapters import PlainMetricAdapter, build_adapter
from .base import MetricAdapter, Score
from .bootstrap import image_weights, interval, paired_difference, seed_of_set
from .evaluators import MeasuredPart, Names, select_part
from .mpc import ALEXNET, alexnet, mean_performance, summarize

__all__ = [
    'ALEXNET',
    'MeasuredPart',
    'MetricAdapter',
    'Names',
    'PlainMetricAdapter',
    'Score',
    'alexnet',
    'build_adapter',
    'distinct_names',
    'image_weights',
    'interval',
    'mean_performance',
    'paired_difference',
    'seed_of_set',
    'select_part',
    'summarize',
]
