# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
_base_ = ['./adasap_faster-rcnn_r50_fpn_1x_voc0712.py', '../_base_/control_plain.py']

default_hooks = dict(adasap=_base_.control)
