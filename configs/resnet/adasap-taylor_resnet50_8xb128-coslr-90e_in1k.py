# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-50 at 0.42 of its parameters, chosen by Taylor's criterion; all else as by magnitude.
_base_ = './adasap_resnet50_8xb128-coslr-90e_in1k.py'

default_hooks = dict(adasap=dict(importance=dict(_delete_=True, type='TaylorImportance')))
