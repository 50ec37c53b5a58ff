# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .adasap_hook import AdaSAPHook
from .guard import guard_loading

guard_loading()

__all__ = ['AdaSAPHook']
