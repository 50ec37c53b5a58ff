# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# DeiT-S, a ViT-S: the dense model of adasap_deit-small_8xb128-coslr-90e_in1k.py. Needs
# ImageNet below data/imagenet. Optimizer, augmentation and loss are those of mmpretrain, which
# trains for 300 epochs; AdaSAP starts from what that gives, so 90 are meant to do.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['mmpretrain::deit/deit-small_4xb256_in1k.py', '../_base_/imagenet_8xb128-coslr-90e.py']
# So that a pruned checkpoint is refused here; mmpretrain alone would test random weights.
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))

train_dataloader = dict(batch_size=128)
param_scheduler = _base_.coslr_90e
train_cfg = dict(max_epochs=90)
