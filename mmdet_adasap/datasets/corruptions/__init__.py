# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Image corruptions of ImageNet-C and Pascal-C in numpy, OpenCV and Pillow, one function each."""

from .corrupting import check_condition, corrupt
from .registry import CORRUPTIONS, EXTRAS, GROUPS
from .seeding import corruption_seed

__all__ = ['CORRUPTIONS', 'EXTRAS', 'GROUPS', 'check_condition', 'corrupt', 'corruption_seed']
