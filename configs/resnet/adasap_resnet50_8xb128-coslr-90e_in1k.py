# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-50 at 0.42 of its parameters, by magnitudes: AdaSAP-P of the paper. Needs ImageNet below
# data/imagenet.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./resnet50_8xb128-coslr-90e_in1k.py', '../_base_/adasap.py']

# mmpretrain's own weights, trained by another recipe, are the start.
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth'

# The base trains for 90 epochs, on a cosine from epoch 8. The cut comes after 10 + 20 epochs, with
# the rate still high. Warm-up and interval are published.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(
        _base_.adasap,
        warmup=10,
        prune=20,
        target=dict(params=0.42),
        interval=30,
        importance=dict(type='MagnitudeImportance', p=2),
    )
)
