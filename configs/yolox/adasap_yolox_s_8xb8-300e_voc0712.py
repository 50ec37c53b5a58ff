# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# YOLOX-s at 0.5 of its parameters. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./yolox_s_8xb8-300e_voc0712.py', '../_base_/adasap.py']

# What train.py leaves behind for yolox_s_8xb8-300e_voc0712.py.
load_from = 'work_dirs/yolox_s_8xb8-300e_voc0712/epoch_300.pth'

# The base lowers the learning rate on a cosine from epoch 5 to 285, with strong augmentation
# until then; the cut comes after 20 + 60 epochs, early on that cosine.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=20, prune=60, target=dict(params=0.5), interval=250)
)
