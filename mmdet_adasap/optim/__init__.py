# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .adasap_optim_wrapper import AdaSAPOptimWrapper

__all__ = ['AdaSAPOptimWrapper']
