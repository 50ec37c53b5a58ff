# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The step of two passes, as optimizer wrappers of mmengine."""

from .adasap_amp_optim_wrapper import AdaSAPAmpOptimWrapper
from .adasap_optim_wrapper import AdaSAPOptimWrapper
from .gradients import (
    GradientObserverMixin,
    observe_clean_gradients,
)
from .replay import BufferSnapshot, preserve_rng_state

__all__ = [
    'AdaSAPAmpOptimWrapper',
    'AdaSAPOptimWrapper',
    'BufferSnapshot',
    'GradientObserverMixin',
    'observe_clean_gradients',
    'preserve_rng_state',
]
