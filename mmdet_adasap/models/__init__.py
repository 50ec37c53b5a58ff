# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from ..registration import mmdet_works

SSD_HEAD_MENDED = False
if mmdet_works():
    from .ssd_head import mend_ssd_head

    SSD_HEAD_MENDED = mend_ssd_head()

__all__ = ['SSD_HEAD_MENDED']
