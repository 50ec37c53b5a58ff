# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .adasap_amp_optim_wrapper import AdaSAPAmpOptimWrapper
from .adasap_optim_wrapper import AdaSAPOptimWrapper

__all__ = ['AdaSAPAmpOptimWrapper', 'AdaSAPOptimWrapper']
