# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .adasap_hook import AdaSAPHook
from .atomic_checkpoint_hook import AtomicCheckpointHook

__all__ = ['AdaSAPHook', 'AtomicCheckpointHook']
