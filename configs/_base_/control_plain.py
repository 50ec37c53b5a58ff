# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Control: the config's plain optimizer, one pass a step instead of two.
control = dict(perturbation=None, finetune=None)
