# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .loading import load_pruned

__all__ = ['load_pruned']
