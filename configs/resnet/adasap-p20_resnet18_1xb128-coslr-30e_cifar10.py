# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-18 for CIFAR-10 at 0.20 of its parameters; all else as at 0.5.
_base_ = './adasap_resnet18_1xb128-coslr-30e_cifar10.py'

default_hooks = dict(adasap=dict(target=dict(params=0.2)))
