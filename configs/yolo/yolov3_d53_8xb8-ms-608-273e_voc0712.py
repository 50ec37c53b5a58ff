# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# A dense YOLOv3 on VOC, all else as mmdet trains it on COCO, the anchors included: the start of
# adasap_yolov3_d53_8xb8-ms-608-273e_voc0712.py. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = ['mmdet::yolo/yolov3_d53_8xb8-ms-608-273e_coco.py', '../_base_/voc0712.py']
# So that a pruned checkpoint is refused here; mmdet alone would test random weights.
custom_imports = dict(imports=['mmdet_adasap'])
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))

model = dict(bbox_head=dict(num_classes=20))

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        # Each VOCDataset puts its year there, and unequal entries cannot be joined.
        ignore_keys=['dataset_type'],
        datasets=[
            dict(
                part,
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline={{_base_.train_pipeline}},
            )
            for part in _base_.voc_trainval
        ],
    )
)
val_dataloader = dict(
    dataset=dict(_base_.voc_test, _delete_=True, pipeline={{_base_.test_pipeline}})
)
test_dataloader = val_dataloader

val_evaluator = dict(_base_.voc_metric, _delete_=True)
test_evaluator = val_evaluator
