default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)
data_preprocessor = dict(num_classes=4, mean=[125.0] * 3, std=[50.0] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        stem_channels=4,
        base_channels=4,
        style='pytorch',
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=4,
        in_channels=8,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
load = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=40, edge='short'),
    dict(type='CenterCrop', crop_size=32),
]
pack = dict(type='PackInputs')
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='CustomDataset', data_root='images', data_prefix='train', pipeline=[*load, pack]
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        type='CustomDataset', data_root='images', data_prefix='test', pipeline=[*load, pack]
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='AdaSAPOptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
)
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook',
        warmup=1,
        prune=1,
        target=dict(params=0.6),
        importance=dict(type='TaylorImportance'),
        interval=4,
        round_to=1,
    ),
    checkpoint=dict(
        type='AtomicCheckpointHook', interval=4, published_keys=['meta', 'state_dict']
    ),
    logger=dict(type='LoggerHook', interval=8),
)
randomness = dict(seed=0)
log_level = 'WARNING'
