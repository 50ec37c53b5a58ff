# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# SAM: one radius for all weights, in every phase. Its radii were chosen as those of AdaSAP were.
_base_ = ['./adasap_resnet18_tiny-imagenet.py', '../_base_/control_sam.py']

default_hooks = dict(adasap=_base_.control)
