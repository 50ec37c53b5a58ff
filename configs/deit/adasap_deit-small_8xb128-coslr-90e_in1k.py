# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# DeiT-S at 0.5 of its parameters. Needs ImageNet below data/imagenet.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['./deit-small_8xb128-coslr-90e_in1k.py', '../_base_/adasap.py']

# mmpretrain's own weights, trained by another recipe, are the start.
load_from = 'https://mmassets.onedl.ai/mmclassification/v0/deit/deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth'

# An attention head counts as one channel; the embedding stays whole. The base trains for 90
# epochs, on a cosine from epoch 8; the cut comes after 10 + 20, with the rate still high.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(_base_.adasap, warmup=10, prune=20, target=dict(params=0.5), interval=30)
)
