# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# Training on ImageNet, for all classifiers that learn by SGD: batches of 1024 on 8 GPUs, 90
# epochs, a cosine after 8 epochs in which the rate rises, label smoothing. So is AdaSAP
# published, as far as a secondary reading of the paper tells. That no weight decay acts on norms
# is our choice.
#
# They are variables because two bases may not share a key; a classifier's file puts them in.
sgd_1024 = dict(
    optimizer=dict(type='SGD', lr=1.024, momentum=0.875, weight_decay=3.05e-5),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
coslr_90e = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        begin=0,
        end=8,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        begin=8,
        T_max=82,
        end=90,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
label_smoothing = dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1)
