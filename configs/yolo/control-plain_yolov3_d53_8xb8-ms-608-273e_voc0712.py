# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
_base_ = ['./adasap_yolov3_d53_8xb8-ms-608-273e_voc0712.py', '../_base_/control_plain.py']

default_hooks = dict(adasap=_base_.control)
