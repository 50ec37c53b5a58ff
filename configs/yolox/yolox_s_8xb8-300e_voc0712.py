# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# A dense YOLOX-s on VOC, all else as mmdet trains it on COCO: the start of
# adasap_yolox_s_8xb8-300e_voc0712.py. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', '../_base_/voc0712.py']
# So that a pruned checkpoint is refused here; mmdet alone would test random weights.
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))

model = dict(bbox_head=dict(num_classes=20))

load_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
]
train_dataset = dict(
    _delete_=True,
    type='MultiImageMixDataset',
    dataset=dict(
        type='ConcatDataset',
        # Each VOCDataset puts its year there, and unequal entries cannot be joined.
        ignore_keys=['dataset_type'],
        datasets=[
            dict(
                part,
                filter_cfg=dict(filter_empty_gt=False, min_size=32),
                pipeline=load_pipeline,
            )
            for part in _base_.voc_trainval
        ],
    ),
    pipeline={{_base_.train_pipeline}},
)
train_dataloader = dict(dataset=train_dataset)
val_dataloader = dict(
    dataset=dict(_base_.voc_test, _delete_=True, pipeline={{_base_.test_pipeline}})
)
test_dataloader = val_dataloader

# As in the base, but the rate that the cosine leads down to follows --auto-scale-lr.
param_scheduler = [
    dict(
        type='mmdet.QuadraticWarmupLR',
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        begin=5,
        T_max=285,
        end=285,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='ConstantLR', by_epoch=True, factor=1, begin=285, end=300),
]

val_evaluator = dict(_base_.voc_metric, _delete_=True)
test_evaluator = val_evaluator
