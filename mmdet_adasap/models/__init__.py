# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Running a model so that every layer is met, what it costs, and a backbone that others lack."""

from .forward import complete_forward, raw_forward, sizes_of, synthetic_batch
from .profiling import fill_dense, flops_of, latencies, noise_batch, parameters_of, preprocessed

__all__ = [
    'complete_forward',
    'fill_dense',
    'flops_of',
    'latencies',
    'noise_batch',
    'parameters_of',
    'preprocessed',
    'raw_forward',
    'sizes_of',
    'synthetic_batch',
]
