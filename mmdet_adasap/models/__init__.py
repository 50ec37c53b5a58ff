# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from importlib.util import find_spec

from ..registration import mmdet_works

__all__ = ['BACKBONES', 'SSD_HEAD_MENDED']

BACKBONES: tuple[type, ...] = ()
"""Backbones that mmdet and mmpretrain lack, each in a file that needs nothing of this package."""
if find_spec('mmcv') is not None:
    from .mobilenet_v1 import MobileNetV1

    BACKBONES += (MobileNetV1,)
    __all__ += ['MobileNetV1']

SSD_HEAD_MENDED = False
if mmdet_works():
    from .ssd_head import mend_ssd_head

    SSD_HEAD_MENDED = mend_ssd_head()
