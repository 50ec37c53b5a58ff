# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# A small dense ResNet-18 on the built-in classification set (tools/demo/make_tiny_imagenet.py),
# for a CPU.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmdet_adasap'])

# A quarter of the width, and a stride of 2 where the stem's maps are still large; all else is as
# in mmpretrain's ResNet-18 for CIFAR.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=16,
        base_channels=16,
        strides=(2, 2, 2, 2),
        out_indices=(3,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=128,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
data_preprocessor = dict(
    num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)

# No augmentation: a flipped digit is another sign, and a run that is resumed then sees the images
# that it would have seen.
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root='data/tiny_imagenet_32px', pipeline=pipeline)
# mmpretrain's train.py would pin memory and keep workers, which are for GPUs.
loader = dict(
    num_workers=0,
    pin_memory=False,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
)
train_dataloader = dict(
    batch_size=32,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data_prefix='train', **dataset),
    **loader,
)
val_dataloader = dict(
    batch_size=100,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='val', **dataset),
    **loader,
)
test_dataloader = dict(
    batch_size=100,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='test', **dataset),
    **loader,
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

max_epochs = 9  # of 75 iterations
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=9)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-3,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=25),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=1),
)
randomness = dict(seed=0)
