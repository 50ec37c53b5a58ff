# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
_base_ = ['./adasap_resnet18_1xb128-coslr-30e_cifar10.py', '../_base_/control_asam.py']

default_hooks = dict(adasap=_base_.control)
