# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# VOC for the detectors that mmdet has for COCO alone: training on VOC2007 and VOC2012, test on
# VOC2007. A detector's file puts its pipelines in.
voc_trainval = [
    dict(
        type='VOCDataset',
        data_root='data/VOCdevkit/',
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
    ),
    dict(
        type='VOCDataset',
        data_root='data/VOCdevkit/',
        ann_file='VOC2012/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2012/'),
    ),
]
voc_test = dict(
    type='VOCDataset',
    data_root='data/VOCdevkit/',
    ann_file='VOC2007/ImageSets/Main/test.txt',
    data_prefix=dict(sub_data_root='VOC2007/'),
    test_mode=True,
)
voc_metric = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
