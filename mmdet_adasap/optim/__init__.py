# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The step of two passes, as optimizer wrappers of mmengine."""

from .adasap_amp_optim_wrapper import AdaSAPAmpOptimWrapper
from .adasap_optim_wrapper import AdaSAPOptimWrapper
from .gradients import average_gradients, optimizer_parameters, set_aside
from .replay import BufferSnapshot, keeping_random

__all__ = [
    'AdaSAPAmpOptimWrapper',
    'AdaSAPOptimWrapper',
    'BufferSnapshot',
    'average_gradients',
    'keeping_random',
    'optimizer_parameters',
    'set_aside',
]
