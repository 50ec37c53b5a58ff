# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-50 at 0.20 of its parameters; all else as at 0.42.
_base_ = './adasap_resnet50_8xb128-coslr-90e_in1k.py'

default_hooks = dict(adasap=dict(target=dict(params=0.2)))
