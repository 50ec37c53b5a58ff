# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Plain SGD: the same pruning, criterion, schedule and number of steps, with one pass a step.
_base_ = ['./adasap_resnet18_tiny-imagenet.py', '../_base_/control_plain.py']

default_hooks = dict(adasap=_base_.control)
