# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Faster R-CNN at 0.5 of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./faster-rcnn_r50_fpn_1x_voc0712.py', '../_base_/adasap.py']

# What train.py leaves behind for faster-rcnn_r50_fpn_1x_voc0712.py.
load_from = 'work_dirs/faster-rcnn_r50_fpn_1x_voc0712/epoch_4.pth'

# The base counts 4 epochs of three passes over the data and lowers the learning rate after 3:
# one epoch before the prune phase, one of pruning, then one at the full rate and one at a tenth.
# The first stage of the backbone is frozen there; what is frozen is never cut. Its batch norms
# keep ImageNet's running statistics (norm_eval=True), before the cut and after; scales and shifts
# learn.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=1, prune=1, target=dict(params=0.5), interval=100)
)
