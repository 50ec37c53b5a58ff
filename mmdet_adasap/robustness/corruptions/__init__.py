# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Image corruptions of ImageNet-C and Pascal-C in numpy, OpenCV and Pillow, one function each."""

from ..benchmark import MODES, SEVERITIES
from .corrupt import (
    BENCHMARK,
    CORRUPTIONS,
    EXTRAS,
    GROUPS,
    check_condition,
    check_image,
    check_mode,
    corrupt,
    corruption_seed,
)
from .weather import check_frost_photos

__all__ = [
    'BENCHMARK',
    'CORRUPTIONS',
    'EXTRAS',
    'GROUPS',
    'MODES',
    'SEVERITIES',
    'check_condition',
    'check_frost_photos',
    'check_image',
    'check_mode',
    'corrupt',
    'corruption_seed',
]
