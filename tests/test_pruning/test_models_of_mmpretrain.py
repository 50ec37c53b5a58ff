# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Every classifier that the README says can be pruned, from its config to a rebuilt slim model."""

import json
from pathlib import Path

import pytest

from _utils.run_model_case import check_choices, run_case

pytest.importorskip('mmpretrain')
CONFIGS = Path(__file__).parents[2] / 'configs'

# Config, side of the image, fraction of the parameters that can be reached by eights, number of
# modules that are left whole since they do not run when cut, and of attention modules that lose
# heads.
MODELS = {
    'MobileNetV1': (
        str(CONFIGS / 'mobilenet_v1/mobilenet-v1_8xb128-coslr-90e_in1k.py'),
        64,
        0.05,
        0,
        0,
    ),
    'DeiT-S': (str(CONFIGS / 'deit/deit-small_8xb128-coslr-90e_in1k.py'), 64, 0.15, 0, 12),
    'ResNet-50': (str(CONFIGS / 'resnet/resnet50_8xb128-coslr-90e_in1k.py'), 64, 0.05, 0, 0),
    'ResNet-18': (str(CONFIGS / 'resnet/resnet18_8xb128-coslr-90e_in1k.py'), 64, 0.05, 0, 0),
    'ResNet-18, CIFAR': (
        str(CONFIGS / 'resnet/resnet18_1xb128-coslr-30e_cifar10.py'),
        32,
        0.05,
        0,
        0,
    ),
    'MobileNetV2': (
        str(CONFIGS / 'mobilenet_v2/mobilenet-v2_8xb128-coslr-90e_in1k.py'),
        64,
        0.05,
        0,
        0,
    ),
    'MobileNetV3': ('mmpretrain::mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py', 64, 0.05, 0, 0),
    'SE-ResNet-50': ('mmpretrain::seresnet/seresnet50_8xb32_in1k.py', 64, 0.05, 0, 0),
    'EfficientNet-B0': ('mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py', 64, 0.05, 0, 0),
    'RegNetX-400MF': ('mmpretrain::regnet/regnetx-400mf_8xb128_in1k.py', 64, 0.05, 0, 0),
    'VGG-11-BN': ('mmpretrain::vgg/vgg11bn_8xb32_in1k.py', 224, 0.05, 0, 0),
    'DenseNet-121': ('mmpretrain::densenet/densenet121_4xb256_in1k.py', 64, 0.05, 0, 0),
    'ShuffleNetV2': ('mmpretrain::shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py', 64, 0.3, 0, 0),
    'ConvNeXt-T': ('mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', 64, 0.3, 0, 0),
    'Swin-T': ('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', 224, 0.5, 12, 0),
}


@pytest.mark.slow  # test_export_classifiers.py has a small one of each kind, from its config on
@pytest.mark.parametrize('name', MODELS)
def test_model(name, tmp_path, record_property):
    config, size, least, whole, heads = MODELS[name]
    found = run_case(config, size, tmp_path)
    record_property('found', json.dumps(found))
    print(json.dumps({'model': name, **found}))
    check_choices(found['choices'])
    assert max(choice['least'] for choice in found['choices']) <= least
    assert found['pruned'] <= 1e-5
    assert found['two images'] <= 1e-5
    assert 0.98 * found['target'] < found['left'] <= found['target']
    assert len(found['whole']) == whole
    assert found['heads'] == heads
    assert run_case(config, size, tmp_path, '--again')['again'] <= 1e-5
