# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# A dense SSD512 on ResNet-50: the start of adasap_ssd512_r50_8xb16-800e_voc0712.py, and the
# detector that AdaSAP is published with. The published descriptions leave much open: backbone,
# epochs, batch and optimizer are from a secondary reading of the papers, and what the extra
# layers look like is our choice. Needs VOC2007 and VOC2012 below data/VOCdevkit.
# The learning rate is meant for 8 GPUs: call train.py with --auto-scale-lr.
_base_ = 'mmdet::pascal_voc/ssd512_voc0712.py'
# mmdet's SSD cannot predict without it.
custom_imports = dict(imports=['mmdet_adasap'])

# Channels of the maps with 64, 32, 16, 8, 4, 2 and 1 cells a side. mmdet's anchors for SSD512
# are meant for just these.
channels = (1024, 512, 512, 256, 256, 256, 256)
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    # ResNet-50 up to layer3, whose stride is 1: 1024 channels at an eighth of the image. Trained
    # as a whole, because what is frozen is never cut.
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 1),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    # The backbone is normalised, so L2Norm has nothing to balance here.
    neck=dict(
        in_channels=channels[:1],
        out_channels=channels,
        level_strides=(2, 2, 2, 2, 2, 1),
        level_paddings=(1, 1, 1, 1, 1, 1),
        l2_norm_scale=None,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(in_channels=channels),
)

# 800 passes over the data: 80 epochs of ten, as mmdet's SSD repeats them within an epoch. The
# learning rate rises for 50 passes and falls after 600; the second step, after 700, is a guess.
# No batch of one image: the last map has one cell, and BN in training needs more than one value.
train_dataloader = dict(batch_size=16, batch_sampler=dict(drop_last=True))
train_cfg = dict(max_epochs=80, val_interval=4)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=4))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.001,
        begin=0,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='MultiStepLR', begin=0, end=80, by_epoch=True, milestones=[60, 70], gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=8e-3, momentum=0.9, weight_decay=2e-3),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
auto_scale_lr = dict(base_batch_size=128)
