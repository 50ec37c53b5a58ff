# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Hooks of mmengine: the method, checkpoints that are whole, robustness while training."""

from .adasap_hook import AdaSAPHook
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .robustness_hook import RobustnessHook
from .settings import LATENCY_IMPORTANCE, default_importance

__all__ = [
    'LATENCY_IMPORTANCE',
    'AdaSAPHook',
    'AtomicCheckpointHook',
    'RobustnessHook',
    'default_importance',
]
