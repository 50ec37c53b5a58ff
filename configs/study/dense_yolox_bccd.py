# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# The demo's YOLOX on BCCD, 364 photographs of blood cells in the layout of VOC:
#   git clone https://github.com/Shenggan/BCCD_Dataset data/BCCD_Dataset
# tools/study.py gives the path of the folder BCCD in it as --data-root.
_base_ = '../demo/dense_yolox_tiny-voc.py'

img_scale = (224, 224)
classes = ('RBC', 'WBC', 'Platelets')
data_root = 'data/BCCD_Dataset/BCCD/'

model = dict(bbox_head=dict(num_classes=3))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=img_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(
    metainfo=dict(classes=classes), data_root=data_root, data_prefix=dict(sub_data_root='')
)
train_dataloader = dict(
    dataset=dict(ann_file='ImageSets/Main/train.txt', pipeline=train_pipeline, **dataset)
)
val_dataloader = dict(
    dataset=dict(ann_file='ImageSets/Main/val.txt', pipeline=test_pipeline, **dataset)
)
test_dataloader = dict(
    dataset=dict(ann_file='ImageSets/Main/test.txt', pipeline=test_pipeline, **dataset)
)
val_evaluator = dict(eval_mode='area')
test_evaluator = val_evaluator

max_epochs = 50  # of 13 iterations
train_cfg = dict(max_epochs=max_epochs, val_interval=25)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=2e-4,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
