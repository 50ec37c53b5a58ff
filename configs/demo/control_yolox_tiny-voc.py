# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# The control: the same pruning, criterion, schedule and number of steps, with one pass a step.
_base_ = './adasap_yolox_tiny-voc.py'

default_hooks = dict(adasap=dict(perturbation=None, finetune=None))
