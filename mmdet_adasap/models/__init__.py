# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from importlib.util import find_spec

from ..registration import mmdet_works

__all__ = ['SSD_HEAD_MENDED']

if find_spec('mmcv') is not None:
    from .mobilenet_v1 import MobileNetV1

    __all__ += ['MobileNetV1']

SSD_HEAD_MENDED = False
if mmdet_works():
    from .ssd_head import mend_ssd_head

    SSD_HEAD_MENDED = mend_ssd_head()
