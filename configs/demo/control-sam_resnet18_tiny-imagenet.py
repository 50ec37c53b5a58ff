# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# SAM: one radius for all weights, in every phase. As with AdaSAP, half of the radii of
# _base_/control_sam.py: the best of a quarter, a half and all of them, chosen in the same way.
_base_ = ['./adasap_resnet18_tiny-imagenet.py', '../_base_/control_sam.py']

default_hooks = dict(adasap=_base_.control)
default_hooks['adasap']['perturbation']['rho'] = 0.008
default_hooks['adasap']['finetune']['rho'] = 0.004
