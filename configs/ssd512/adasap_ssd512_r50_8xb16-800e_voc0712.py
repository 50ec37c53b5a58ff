# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# SSD512-R50 at 0.4 of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./ssd512_r50_8xb16-800e_voc0712.py', '../_base_/adasap.py']

# What train.py leaves behind for ssd512_r50_8xb16-800e_voc0712.py.
load_from = 'work_dirs/ssd512_r50_8xb16-800e_voc0712/epoch_80.pth'

# The base counts 80 epochs of ten passes over the data, warms its learning rate up for 5 and
# lowers it after 60 and 70. The cut comes after 8 + 20, so the slim model has 32 at the full rate.
# These phases are our choice: what is published gives the length of the warm-up on ImageNet alone.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=8, prune=20, target=dict(params=0.4), interval=500)
)
