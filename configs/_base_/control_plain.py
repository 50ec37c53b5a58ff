# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Control: plain SGD, one pass a step instead of two.
control = dict(perturbation=None, finetune=None)
