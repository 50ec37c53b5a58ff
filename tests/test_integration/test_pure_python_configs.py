# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Configs of mmengine's newer style: classes in place of names, read_base(), and no scope."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

from mmengine.config import Config

from mmdet_adasap.apis import ModelSource, evaluate_robustness, prune_model
from mmdet_adasap.integration import build_dense, library_of

RUNTIME = 'default_scope = None\n'
CLASSIFIER = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmpretrain.datasets import CustomDataset, LoadImageFromFile, PackInputs, ResizeEdge
from mmpretrain.datasets.transforms import CenterCrop
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import (
    ClsDataPreprocessor, GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet_CIFAR,
)

with read_base():
    from .runtime import *

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(type=ClsDataPreprocessor, mean=[100.0] * 3, std=[50.0] * 3),
    backbone=dict(type=ResNet_CIFAR, depth=18, stem_channels=8, base_channels=8),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=2, in_channels=64),
)
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ResizeEdge, scale=36, edge='short'),
    dict(type=CenterCrop, crop_size=32),
    dict(type=PackInputs),
]
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type=CustomDataset, data_root={data!r}, pipeline=test_pipeline),
    sampler=dict(type=DefaultSampler, shuffle=False),
)
test_evaluator = dict(type=Accuracy, topk=(1,))
test_cfg = dict()
"""
DETECTOR = """
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import VOCDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.evaluation import VOCMetric
from mmdet.models import CSPDarknet, DetDataPreprocessor, YOLOX, YOLOXHead, YOLOXPAFPN
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler

with read_base():
    from .runtime import *

model = dict(
    type=YOLOX,
    data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=CSPDarknet, deepen_factor=0.33, widen_factor=0.125),
    neck=dict(type=YOLOXPAFPN, in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
    bbox_head=dict(type=YOLOXHead, num_classes=10, in_channels=32, feat_channels=32),
    test_cfg=dict(score_thr=0.01, nms=dict(type='nms', iou_threshold=0.65)),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type=VOCDataset,
        metainfo=dict(
            classes=(
                'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine',
            )
        ),
        data_root={data!r},
        ann_file='VOC2007/ImageSets/Main/test.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
        test_mode=True,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=Resize, scale=(96, 96), keep_ratio=True),
            dict(type=LoadAnnotations, with_bbox=True),
            dict(type=PackDetInputs),
        ],
    ),
    sampler=dict(type=DefaultSampler, shuffle=False),
)
test_evaluator = dict(type=VOCMetric, metric='mAP', eval_mode='11points')
test_cfg = dict()
"""


@pytest.fixture(params=['mmpretrain', pytest.param('mmdet', marks=pytest.mark.long)])
def config(request, tmp_path, tiny_voc_folder) -> Path:
    (tmp_path / 'runtime.py').write_text(RUNTIME)
    if request.param == 'mmdet':
        text = DETECTOR.format(data=f'{tiny_voc_folder}/VOCdevkit/')
    else:
        rng = np.random.default_rng(0)
        for name in ('left', 'right'):
            (tmp_path / 'images' / name).mkdir(parents=True)
            image = rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / 'images' / name / '0.png'), image)
        text = CLASSIFIER.format(data=str(tmp_path / 'images'))
    (tmp_path / f'{request.param}_config.py').write_text(text)
    return tmp_path / f'{request.param}_config.py'


def test_every_command_takes_it(config, tmp_path, run_tool):
    read = Config.fromfile(config)
    library = config.name.partition('_')[0]
    assert not isinstance(read.model.type, str)
    assert library_of(read) == library

    model = build_dense(config)
    structure = prune_model(model, target=dict(params=0.6), round_to=4)
    slim = {'meta': {'mmdet_adasap': structure}, 'state_dict': model.state_dict()}
    torch.save(slim, tmp_path / 'slim.pth')

    code, out, err = run_tool(
        'list_groups.py', config, '--target', 'params=0.5', '--json', tmp_path / 'groups.json'
    )
    assert not code, err
    assert 'of the dense model' in out
    size = json.loads((tmp_path / 'groups.json').read_text())['image_size']
    assert size == ([96, 96] if library == 'mmdet' else [32, 32])

    code, out, err = run_tool(
        'export.py', config, tmp_path / 'slim.pth', '--out', tmp_path / 'exported', '--rounds', '1'
    )
    assert not code, err

    sources = [
        ModelSource('slim', str(config), str(tmp_path / 'slim.pth')),
        ModelSource(
            'exported',
            str(tmp_path / 'exported' / 'config.py'),
            str(tmp_path / 'exported' / 'model.pth'),
        ),
    ]
    results = evaluate_robustness(
        sources, tmp_path / 'results', corruptions=['fog'], severities=[2], resamples=10
    )
    assert results['models']['slim']['mPC'] == results['models']['exported']['mPC']
