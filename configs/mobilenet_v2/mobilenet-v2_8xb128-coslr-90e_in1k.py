# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# MobileNetV2: the dense model of adasap_mobilenet-v2_8xb128-coslr-90e_in1k.py,
# trained by the recipe of all our classifiers. Needs ImageNet below data/imagenet.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = [
    'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py',
    '../_base_/imagenet_8xb128-coslr-90e.py',
]
# So that a pruned checkpoint is refused here; mmpretrain alone would test random weights.
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=3))

model = dict(head=dict(loss=_base_.label_smoothing))
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(_base_.sgd_1024, _delete_=True)
param_scheduler = _base_.coslr_90e
train_cfg = dict(max_epochs=90)
auto_scale_lr = dict(base_batch_size=1024)
