# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .adasap_hook import AdaSAPHook
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .guard import guard_loading, guard_reading
from .robustness_hook import RobustnessHook

guard_loading()
guard_reading()

__all__ = ['AdaSAPHook', 'AtomicCheckpointHook', 'RobustnessHook']
