# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Running a model so that every layer is met, what it costs, and a backbone that others lack."""

from .forward import candidate_sizes, complete_forward, raw_forward, synthetic_batch
from .profiling import (
    count_parameters,
    load_slim_weights,
    measure_flops,
    measure_latencies,
    noise_batch,
    preprocess_batch,
)

__all__ = [
    'candidate_sizes',
    'complete_forward',
    'count_parameters',
    'load_slim_weights',
    'measure_flops',
    'measure_latencies',
    'noise_batch',
    'preprocess_batch',
    'raw_forward',
    'synthetic_batch',
]
