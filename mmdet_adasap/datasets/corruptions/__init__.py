# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Image corruptions of ImageNet-C and Pascal-C in numpy, OpenCV and Pillow, one function each."""

from .corrupting import MODES, check_condition, check_image, check_mode, corrupt
from .frost_photos import check_frost_photos
from .registry import CORRUPTIONS, EXTRAS, GROUPS
from .seeding import corruption_seed

__all__ = [
    'CORRUPTIONS',
    'EXTRAS',
    'GROUPS',
    'MODES',
    'check_condition',
    'check_frost_photos',
    'check_image',
    'check_mode',
    'corrupt',
    'corruption_seed',
]
