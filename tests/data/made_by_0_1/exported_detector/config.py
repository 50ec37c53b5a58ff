# A model that was pruned with mmdet_adasap 0.1.0, which is not needed any more.
#
# slim_model_v1.py, beside this file, cuts the dense model to the shape in structure.json. The
# folder can be moved as a whole. In a copy that train.py dumps into its work_dir the paths are
# those of this folder; read such a copy with this folder on the PYTHONPATH, or use this file.
import sys

sys.path.append("{{ fileDirname }}")

classes = (
    'zero',
    'one',
    'two',
    'three',
    'four',
    'five',
    'six',
    'seven',
    'eight',
    'nine',
)
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'slim_model_v1',
    ])
dataset = dict(
    data_prefix=dict(sub_data_root='VOC2007/'),
    data_root='voc/VOCdevkit/',
    metainfo=dict(
        classes=(
            'zero',
            'one',
            'two',
            'three',
            'four',
            'five',
            'six',
            'seven',
            'eight',
            'nine',
        )),
    type='VOCDataset')
default_hooks = dict(
    checkpoint=dict(
        interval=3,
        published_keys=[
            'meta',
            'state_dict',
        ],
        type='CheckpointHook'),
    logger=dict(interval=2, type='LoggerHook'))
default_scope = 'mmdet'
load_from = "{{ fileDirname }}/model.pth"
log_level = 'WARNING'
model = dict(
    backbone=dict(
        base_channels=4,
        depth=18,
        dilations=(
            1,
            1,
        ),
        num_stages=2,
        out_indices=(
            0,
            1,
        ),
        stem_channels=4,
        strides=(
            1,
            2,
        ),
        style='pytorch',
        type='ResNet'),
    bbox_head=dict(
        anchor_generator=dict(
            octave_base_scale=4,
            ratios=[
                1.0,
            ],
            scales_per_octave=1,
            strides=[
                4,
                8,
            ],
            type='AnchorGenerator'),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        feat_channels=6,
        in_channels=6,
        loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        num_classes=10,
        stacked_convs=1,
        type='RetinaHead'),
    data_preprocessor=dict(
        mean=[
            125.0,
            125.0,
            125.0,
        ],
        pad_size_divisor=8,
        std=[
            50.0,
            50.0,
            50.0,
        ],
        type='DetDataPreprocessor'),
    dense='RetinaNet',
    neck=dict(in_channels=[
        4,
        8,
    ], num_outs=2, out_channels=6, type='FPN'),
    structure="{{ fileDirname }}/structure.json",
    test_cfg=dict(
        max_per_img=10,
        nms=dict(iou_threshold=0.5, type='nms'),
        nms_pre=100,
        score_thr=0.0),
    train_cfg=dict(
        allowed_border=-1,
        assigner=dict(
            ignore_iof_thr=-1,
            min_pos_iou=0,
            neg_iou_thr=0.4,
            pos_iou_thr=0.5,
            type='MaxIoUAssigner'),
        debug=False,
        pos_weight=-1,
        sampler=dict(type='PseudoSampler')),
    type='SlimModel')
optim_wrapper = dict(
    optimizer=dict(lr=0.01, momentum=0.9, type='SGD', weight_decay=0.0001),
    type='OptimWrapper')
randomness = dict(seed=0)
resume = False
test_cfg = dict()
test_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        data_root='voc/VOCdevkit/',
        metainfo=dict(
            classes=(
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            )),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(
                64,
                64,
            ), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs'),
        ],
        test_mode=True,
        type='VOCDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(eval_mode='11points', metric='mAP', type='VOCMetric')
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        ann_file='VOC2007/ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        data_root='voc/VOCdevkit/',
        filter_cfg=dict(bbox_min_size=None, filter_empty_gt=True, min_size=1),
        metainfo=dict(
            classes=(
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            )),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ],
        type='VOCDataset'),
    num_workers=0,
    sampler=dict(shuffle=True, type='DefaultSampler'))
val_cfg = dict()
val_dataloader = dict(
    batch_size=2,
    dataset=dict(
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        data_root='voc/VOCdevkit/',
        metainfo=dict(
            classes=(
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            )),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(
                64,
                64,
            ), type='Resize'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs'),
        ],
        test_mode=True,
        type='VOCDataset'),
    num_workers=0,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(eval_mode='11points', metric='mAP', type='VOCMetric')
visualizer = dict(
    name='visualizer',
    type='DetLocalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ])
work_dir = './work_dirs/exported_detector'
