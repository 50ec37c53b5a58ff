# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# YOLOv3 at 0.5 of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./yolov3_d53_8xb8-ms-608-273e_voc0712.py', '../_base_/adasap.py']

# What train.py leaves behind for yolov3_d53_8xb8-ms-608-273e_voc0712.py.
load_from = 'work_dirs/yolov3_d53_8xb8-ms-608-273e_voc0712/epoch_273.pth'

# The base trains for 273 epochs and lowers the learning rate after 218 and 246; the cut comes
# after 20 + 60.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=20, prune=60, target=dict(params=0.5), interval=250)
)
