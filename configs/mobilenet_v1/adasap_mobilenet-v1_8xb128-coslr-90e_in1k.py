# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# MobileNetV1 at 0.5 of its parameters. Needs ImageNet below data/imagenet.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./mobilenet-v1_8xb128-coslr-90e_in1k.py', '../_base_/adasap.py']

# What train.py leaves behind for mobilenet-v1_8xb128-coslr-90e_in1k.py.
load_from = 'work_dirs/mobilenet-v1_8xb128-coslr-90e_in1k/epoch_90.pth'

# The base trains for 90 epochs, on a cosine from epoch 8. The cut comes after 10 + 20 epochs, with
# the rate still high. Warm-up and interval are published.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=10, prune=20, target=dict(params=0.5), interval=30)
)
