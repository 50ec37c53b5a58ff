# A model that was pruned with mmdet_adasap 0.1.0, which is not needed any more.
#
# slim_model_v1.py, beside this file, cuts the dense model to the shape in structure.json. The
# folder can be moved as a whole. In a copy that train.py dumps into its work_dir the paths are
# those of this folder; read such a copy with this folder on the PYTHONPATH, or use this file.
import sys

sys.path.append("{{ fileDirname }}")

custom_imports = dict(
    allow_failed_imports=False, imports=[
        'mobilenet_v1',
        'slim_model_v1',
    ])
data_preprocessor = dict(
    mean=[
        125.0,
        125.0,
        125.0,
    ],
    num_classes=4,
    std=[
        50.0,
        50.0,
        50.0,
    ],
    to_rgb=True)
default_hooks = dict(
    checkpoint=dict(
        interval=4,
        published_keys=[
            'meta',
            'state_dict',
        ],
        type='CheckpointHook'),
    logger=dict(interval=8, type='LoggerHook'))
default_scope = 'mmpretrain'
load = [
    dict(type='LoadImageFromFile'),
    dict(edge='short', scale=40, type='ResizeEdge'),
    dict(crop_size=32, type='CenterCrop'),
]
load_from = "{{ fileDirname }}/model.pth"
log_level = 'WARNING'
model = dict(
    backbone=dict(
        act_cfg=dict(negative_slope=0.5, type='LeakyReLU'),
        norm_cfg=dict(num_groups=2, type='GN'),
        type='MobileNetV1',
        widen_factor=0.005),
    dense='ImageClassifier',
    head=dict(
        in_channels=8,
        loss=dict(loss_weight=1.0, type='CrossEntropyLoss'),
        num_classes=4,
        type='LinearClsHead'),
    neck=dict(type='GlobalAveragePooling'),
    structure="{{ fileDirname }}/structure.json",
    type='SlimModel')
optim_wrapper = dict(
    optimizer=dict(lr=0.1, momentum=0.9, type='SGD', weight_decay=0.0001),
    type='OptimWrapper')
pack = dict(type='PackInputs')
randomness = dict(seed=0)
resume = False
test_cfg = dict()
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_prefix='test',
        data_root='images',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(edge='short', scale=40, type='ResizeEdge'),
            dict(crop_size=32, type='CenterCrop'),
            dict(type='PackInputs'),
        ],
        type='CustomDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(topk=(1, ), type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        data_prefix='train',
        data_root='images',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(edge='short', scale=40, type='ResizeEdge'),
            dict(crop_size=32, type='CenterCrop'),
            dict(type='PackInputs'),
        ],
        type='CustomDataset'),
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
val_cfg = dict()
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_prefix='test',
        data_root='images',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(edge='short', scale=40, type='ResizeEdge'),
            dict(crop_size=32, type='CenterCrop'),
            dict(type='PackInputs'),
        ],
        type='CustomDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(topk=(1, ), type='Accuracy')
work_dir = './work_dirs/exported_classifier'
