default_scope = 'mmdet'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)
classes = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[125.0] * 3, std=[50.0] * 3, pad_size_divisor=8
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        stem_channels=4,
        base_channels=4,
        style='pytorch',
    ),
    neck=dict(type='FPN', in_channels=[4, 8], out_channels=6, num_outs=2),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=10,
        in_channels=6,
        stacked_convs=1,
        feat_channels=6,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=1,
            ratios=[1.0],
            strides=[4, 8],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1
        ),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=100, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10
    ),
)
dataset = dict(
    type='CorruptedVOCDataset',
    data_root='voc/VOCdevkit/',
    data_prefix=dict(sub_data_root='VOC2007/'),
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='VOC2007/ImageSets/Main/train.txt',
        filter_cfg=dict(filter_empty_gt=True, min_size=1, bbox_min_size=None),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ],
    ),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(64, 64), keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
)
val_dataloader = test_dataloader
val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=3)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='AdaSAPOptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
)
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook', warmup=1, prune=1, target=dict(params=0.6), interval=2, round_to=1
    ),
    checkpoint=dict(
        type='AtomicCheckpointHook', interval=3, published_keys=['meta', 'state_dict']
    ),
    logger=dict(type='LoggerHook', interval=2),
)
randomness = dict(seed=0)
log_level = 'WARNING'
