# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# YOLOX-s at half of its parameters. mmdet has YOLOX for COCO alone; the data are VOC's here.
# Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)

# A dense YOLOX-s trained on VOC: what train.py leaves behind for this file without its last two
# entries, optim_wrapper and default_hooks.
load_from = 'yolox_s_voc0712_dense.pth'

model = dict(bbox_head=dict(num_classes=20))

data_root = 'data/VOCdevkit/'
dataset_type = 'VOCDataset'

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
                type=dataset_type,
                data_root=data_root,
                ann_file='VOC2007/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2007/'),
                filter_cfg=dict(filter_empty_gt=False, min_size=32),
                pipeline=load_pipeline,
            ),
            dict(
                type=dataset_type,
                data_root=data_root,
                ann_file='VOC2012/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root='VOC2012/'),
                filter_cfg=dict(filter_empty_gt=False, min_size=32),
                pipeline=load_pipeline,
            ),
        ],
    ),
    pipeline={{_base_.train_pipeline}},
)
train_dataloader = dict(dataset=train_dataset)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type=dataset_type,
        data_root=data_root,
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='11points')
test_evaluator = val_evaluator

# The base lowers the learning rate on a cosine from epoch 5 to 285, with strong augmentation
# until then; the cut comes after 20 + 60 epochs, early on that cosine.
optim_wrapper = dict(type='AdaSAPOptimWrapper')
default_hooks = dict(
    adasap=dict(
        type='AdaSAPHook',
        warmup=20,
        prune=60,
        perturbation=dict(
            type='AdaptivePerturbation', rho_min=0.004, rho_max=0.4, scope='layer', asam=True
        ),
        target=dict(params=0.5),
        importance=dict(type='MagnitudeImportance', p=2),
        interval=250,
        schedule='exponential',
        round_to=8,
        finetune=dict(
            type='UniformPerturbation', rho=0.1, scope='layer', asam=True, parameters='weights'
        ),
    )
)
