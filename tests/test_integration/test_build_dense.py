# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pytest
from mmengine.config import Config

from mmdet_adasap.integration.configs import image_side, read_config

CROP = dict(type='CenterCrop', crop_size=224)


@pytest.mark.parametrize(
    ('steps', 'side'),
    [
        ([dict(type='ResizeEdge', scale=256, edge='short'), CROP], 224),
        ([CROP, dict(type='Resize', scale=(64, 64))], 64),
        ([dict(type='Resize', scale=(64, 48))], None),
        ([dict(type='ResizeEdge', scale=256)], None),
        ([dict(type='LoadImageFromFile')], None),
        ([], None),
    ],
)
def test_image_side_is_what_the_last_step_makes(steps, side):
    loader = dict(dataset=dict(pipeline=steps))
    config = Config(dict(default_scope='mmpretrain', test_dataloader=loader))
    assert image_side(config) == side
    assert image_side(Config(dict(default_scope='mmdet', test_dataloader=loader))) is None


def test_image_side_without_a_test_set():
    assert image_side(Config(dict(default_scope='mmpretrain'))) is None
    model = dict(backbone=dict(type='VisionTransformer', img_size=32))
    assert image_side(Config(dict(default_scope='mmpretrain', model=model))) == 32


def test_a_name_with_a_plus():
    """mmengine's own reading refuses the folder of weight standardization, gn+ws."""
    pytest.importorskip('mmdet')
    config = read_config('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py')
    assert config.model.backbone.conv_cfg.type == 'ConvWS'
