# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Hooks of mmengine: the method, checkpoints that are whole, robustness while training."""

from .adasap_hook import AdaSAPHook
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .robustness_hook import RobustnessHook
from .settings import DEFAULT_IMPORTANCE, LATENCY_IMPORTANCE

__all__ = [
    'DEFAULT_IMPORTANCE',
    'LATENCY_IMPORTANCE',
    'AdaSAPHook',
    'AtomicCheckpointHook',
    'RobustnessHook',
]
