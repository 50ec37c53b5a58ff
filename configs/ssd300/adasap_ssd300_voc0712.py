# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# SSD300 at 0.4 of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./ssd300_voc0712.py', '../_base_/adasap.py']

# What train.py leaves behind for ssd300_voc0712.py.
load_from = 'work_dirs/ssd300_voc0712/epoch_24.pth'

# Two passes a step; optimizer and schedule stay the base's. It trains for 24 epochs and lowers
# the learning rate after 16 and 20. The cut comes after 2 + 8, so the slim model has 6 epochs at
# the full rate, in which it recovers, and both milestones. Keep them behind the cut.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=2, prune=8, target=dict(params=0.4), interval=30)
)
