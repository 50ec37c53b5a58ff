# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# ResNet-18 for CIFAR-10 in 30 epochs on one GPU: the start of
# adasap_resnet18_1xb128-coslr-30e_cifar10.py. mmpretrain downloads the data to data/cifar10.
_base_ = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'
# So that a pruned checkpoint is refused here; mmpretrain alone would test random weights.
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', max_keep_ckpts=1))

# The base spreads batches of 128 over 8 GPUs and takes 200 epochs.
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=512)
test_dataloader = dict(batch_size=512)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    begin=0,
    T_max=30,
    end=30,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(max_epochs=30)
