# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-18 for CIFAR-10 at 0.5 of its parameters. Needs CIFAR-10 below
# data/cifar10, where mmpretrain downloads it to, and one GPU.
_base_ = ['./resnet18_1xb128-coslr-30e_cifar10.py', '../_base_/adasap.py']

# What train.py leaves behind for resnet18_1xb128-coslr-30e_cifar10.py.
load_from = 'work_dirs/resnet18_1xb128-coslr-30e_cifar10/epoch_30.pth'

# A third of the epochs that the phases have on ImageNet: the cut comes after 3 + 7 of 30. An epoch
# has 391 iterations.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=3, prune=7, target=dict(params=0.5), interval=30)
)
