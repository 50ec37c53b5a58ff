# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
# The demo's ResNet-18 on 5,000 images of CIFAR-10, as files: train/CLASS/0000.jpg and so on,
# test/CLASS/0000.jpg. tools/study.py writes the lists of images; the others of train/ are not
# used, but for 1,000 that choose settings.
_base_ = '../demo/dense_resnet18_tiny-imagenet.py'

data_root = 'data/cifar10'
classes = (
    *('airplane', 'automobile', 'bird', 'cat', 'deer'),
    *('dog', 'frog', 'horse', 'ship', 'truck'),
)
# At 32 pixels the stem keeps the size of the map.
model = dict(backbone=dict(strides=(1, 2, 2, 2)))
data_preprocessor = dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        data_prefix='train', ann_file='lists/train.txt', pipeline=train_pipeline, **dataset
    ),
)
val_dataloader = dict(dataset=dict(data_prefix='train', ann_file='lists/val.txt', **dataset))
test_dataloader = dict(dataset=dict(data_prefix='test', ann_file='lists/test.txt', **dataset))

max_epochs = 30  # of 79 iterations
train_cfg = dict(max_epochs=max_epochs, val_interval=15)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=79),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-3,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
