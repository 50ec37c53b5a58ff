# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models of mmengine: run one through all its layers, measure it; and a backbone, MobileNetV1.

The backbone is in ``mobilenet_v1.py``, which is registered with mmcv and imports nothing of ours.
"""

from .forward import complete_forward, raw_forward
from .profiling import count_parameters, measure_flops, measure_latencies, preprocess_batch
from .synthetic_batch import candidate_sizes, noise_batch, synthetic_batch

__all__ = [
    'candidate_sizes',
    'complete_forward',
    'count_parameters',
    'measure_flops',
    'measure_latencies',
    'noise_batch',
    'preprocess_batch',
    'raw_forward',
    'synthetic_batch',
]
