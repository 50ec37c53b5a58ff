# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The small models and sets of criteria.py."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / 'configs' / 'demo'


def yolox(data: Path) -> dict:
    """Return the config of the YOLOX-tiny of half width on 60 images of three classes."""
    cfg = Config.fromfile(DEMO / 'dense_yolox_tiny-voc.py')
    widths = [48, 96, 192]
    cfg.merge_from_dict(
        {
            'model.backbone.widen_factor': 0.1875,
            'model.neck.in_channels': widths,
            'model.neck.out_channels': 48,
            'model.bbox_head.in_channels': 48,
            'model.bbox_head.feat_channels': 48,
        }
    )
    _one_class(cfg, data)
    return cfg


def retinanet(data: Path) -> dict:
    """Return the config of a RetinaNet-R18 of a quarter of its width, on the same images."""
    cfg = yolox(data)
    cfg.optim_wrapper.optimizer = dict(type='AdamW', lr=0.001, weight_decay=0.01)
    norm = dict(type='BN', requires_grad=True)
    cfg.model = dict(
        type='RetinaNet',
        data_preprocessor=dict(
            type='DetDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=16,
            num_stages=4,
            out_indices=(1, 2, 3),
            frozen_stages=-1,
            norm_cfg=norm,
            norm_eval=False,
        ),
        neck=dict(
            type='FPN', in_channels=[32, 64, 128], out_channels=48, num_outs=3, norm_cfg=norm
        ),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=1,
            in_channels=48,
            feat_channels=48,
            stacked_convs=2,
            norm_cfg=norm,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=3,
                scales_per_octave=2,
                ratios=[0.7, 1.4],
                strides=[8, 16, 32],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.4,
                min_pos_iou=0,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        ),
        test_cfg=dict(
            nms_pre=1000,
            min_bbox_size=0,
            score_thr=0.01,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=100,
        ),
    )
    return cfg


def resnet(data: Path) -> dict:
    """Return the config of the demo's ResNet-18, of a quarter of its width."""
    cfg = Config.fromfile(DEMO / 'dense_resnet18_tiny-imagenet.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(data / 'tiny_imagenet')
    cfg.test_dataloader = cfg.val_dataloader
    return cfg


def _one_class(cfg: Config, data: Path) -> None:
    cfg.model.bbox_head.num_classes = len(CLASSES)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(data / 'tiny_voc' / 'VOCdevkit') + '/'
        dataset.metainfo = dict(classes=CLASSES)
    # A digit that is only to be found may be flipped and coloured, unlike one that is to be read.
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[-1:-1] = [
        dict(type='YOLOXHSVRandomAug'),
        dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    ]
    cfg.train_dataloader.batch_size = 15


def make_data(data: Path) -> None:
    """Build the sets, and give all digits of the VOC one name: 60 images teach no ten classes."""
    sys.path.insert(0, str(ROOT / 'tools' / 'demo'))
    from builtin_sets.tiny_imagenet import build_tiny_imagenet
    from builtin_sets.tiny_voc import build_tiny_voc

    build_tiny_imagenet(data / 'tiny_imagenet', size=32)
    voc = data / 'tiny_voc'
    if voc.exists():
        return
    made = data / 'tiny_voc.part'
    build_tiny_voc(made, train=60, val=100, test=100)
    for path in (made / 'VOCdevkit/VOC2007/Annotations').glob('*.xml'):
        tree = ET.parse(path)
        for name in tree.iterfind('object/name'):
            name.text = CLASSES[0]
        tree.write(path)
    made.rename(voc)


CLASSES = ('digit',)
MODELS = {
    'yolox': (yolox, 0.02, (120, 480)),
    'retinanet': (retinanet, 0.001, (160, 480)),
    'resnet': (resnet, 0.05, (400, 1200)),
}
"""By name: config, learning rate, iterations of the short and of the long dense training."""
