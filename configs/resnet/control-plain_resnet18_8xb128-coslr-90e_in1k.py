# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
_base_ = ['./adasap_resnet18_8xb128-coslr-90e_in1k.py', '../_base_/control_plain.py']

default_hooks = dict(adasap=_base_.control)
