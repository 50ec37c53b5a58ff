# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Slim classifiers without the plugin and without mmdet: heads, and a backbone of this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmpretrain')

from mmpretrain import ImageClassificationInferencer

from mmdet_adasap.apis import (
    build_dense,
    export_pruned,
    init_pruned_classifier,
    load_pruned,
    prune_model,
)
from mmdet_adasap.errors import OnnxMismatchError
from mmdet_adasap.pruning.structure import META_KEY

ROOT = Path(__file__).parents[2]
BACKBONES = dict(
    mobilenet=("dict(type='MobileNetV1', widen_factor=0.25)", 256, 'GlobalAveragePooling'),
    vit=(
        "dict(type='VisionTransformer', arch=dict(embed_dims=48, num_layers=2, num_heads=4,"
        ' feedforward_channels=96), img_size=32, patch_size=8)',
        48,
        None,
    ),
)
ANY_SIZE = dict(onnx=True, dynamic_size=True, rounds=1)
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)
data_preprocessor = dict(num_classes=10, mean=[125.0] * 3, std=[50.0] * 3, to_rgb=False)
model = dict(
    type='ImageClassifier',
    backbone={backbone},
    neck={neck},
    head=dict(type='LinearClsHead', num_classes=10, in_channels={channels}),
)
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test',
                 pipeline=[dict(type='PackInputs')]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
optim_wrapper = dict(type='AdaSAPOptimWrapper', optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(adasap=dict(type='AdaSAPHook', warmup=1, prune=1, target=dict(params=0.6)))
"""

LOADED_ELSEWHERE = """
import json, sys
sys.modules['mmdet_adasap'] = None  # an import of it would raise
sys.modules['mmdet'] = None
import torch
from mmpretrain import get_model
found = []
for folder in sys.argv[1:]:
    model = get_model(folder + '/config.py', pretrained=folder + '/model.pth').eval()
    with torch.no_grad():
        found.append(model(torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32)).flatten().tolist())
print(json.dumps(found))
"""


def test_exported_classifiers_run_without_the_plugin(tmp_path):
    expected, folders = [], []
    for name, (backbone, channels, neck) in BACKBONES.items():
        config = tmp_path / f'{name}.py'
        neck = f'dict(type={neck!r})' if neck else None
        config.write_text(CONFIG.format(backbone=backbone, channels=channels, neck=neck))
        torch.manual_seed(0)
        model = build_dense(config)
        structure = prune_model(model, target=dict(params=0.6), round_to=1)
        heads = [counts.get('num_heads') for counts in structure['attrs'].values()]
        assert any(heads) == (name == 'vit')
        checkpoint = tmp_path / f'{name}.pth'
        torch.save({'meta': {META_KEY: structure}, 'state_dict': model.state_dict()}, checkpoint)
        out = tmp_path / f'exported_{name}'
        report = export_pruned(config, checkpoint, out, rounds=1)
        assert report['parameters']['slim'] == sum(p.numel() for p in model.parameters())
        assert report['latency']['image'] == [32, 32]
        assert (out / 'mobilenet_v1.py').exists() == (name == 'mobilenet')
        exported = Config.fromfile(out / 'config.py')
        assert exported.work_dir == f'./work_dirs/{out.name}_runs'
        assert 'visualizer' not in exported  # mmdet's is none for classifiers
        folders.append(str(out))

        # What was exported is the pruned model, and that can be pruned once more.
        image = torch.linspace(-1, 1, 3072).reshape(1, 3, 32, 32)
        with torch.no_grad():
            expected.append(model.eval()(image).flatten())
        loaded = init_pruned_classifier(config, checkpoint)
        assert not loaded.training
        with torch.no_grad():
            assert torch.equal(loaded(image).flatten(), expected[-1])
        inferencer = ImageClassificationInferencer(loaded)
        (found,) = inferencer(np.zeros((32, 32, 3), np.uint8))
        assert len(found['pred_scores']) == 10
        again = build_dense(config)
        load_pruned(again, str(checkpoint))
        second = prune_model(again, target=dict(params=0.4), round_to=1)
        assert 0.38 < second['reached']['params'] <= 0.4
        assert second['dense'] == structure['dense']

    done = subprocess.run(
        [sys.executable, '-c', LOADED_ELSEWHERE, *folders],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | dict(PYTHONPATH='', OMP_NUM_THREADS='1'),
    )
    assert not done.returncode, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for ours, theirs in zip(expected, found, strict=True):
        assert torch.allclose(ours, torch.tensor(theirs), atol=1e-6)


@pytest.mark.long
def test_weights_that_test_py_would_not_take_are_said(tmp_path):
    """mmengine saves the moving average as state_dict, also where the config tests without it."""
    backbone, channels, neck = BACKBONES['mobilenet']
    config = tmp_path / 'config.py'
    text = CONFIG.format(backbone=backbone, channels=channels, neck=f'dict(type={neck!r})')
    hook = "custom_hooks = [dict(type='EMAHook', momentum=0.1{})]\n"
    model = build_dense(Config.fromstring(text, '.py'))
    structure = prune_model(model, target=dict(params=0.6), round_to=1)
    checkpoint = tmp_path / 'mobilenet.pth'
    torch.save({'meta': {META_KEY: structure}, 'state_dict': model.state_dict()}, checkpoint)
    for settings, expected in ((', evaluate_on_ema=False', 1), ('', 0)):
        config.write_text(text + hook.format(settings))
        said = []
        export_pruned(config, checkpoint, tmp_path / 'out', rounds=1, progress=said.append)
        assert len([line for line in said if 'is the moving average' in line]) == expected


@pytest.mark.parametrize('name', BACKBONES)
def test_onnx(tmp_path, name):
    pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    backbone, channels, neck = BACKBONES[name]
    config = tmp_path / 'config.py'
    neck = f'dict(type={neck!r})' if neck else None
    config.write_text(CONFIG.format(backbone=backbone, channels=channels, neck=neck))
    model = build_dense(config)
    structure = prune_model(model, target=dict(params=0.6), round_to=1)
    checkpoint = tmp_path / 'slim.pth'
    torch.save({'meta': {META_KEY: structure}, 'state_dict': model.state_dict()}, checkpoint)
    if name == 'vit':  # its embedding of places is interpolated, to a size that a trace fixes
        with pytest.raises(OnnxMismatchError, match=r'^--dynamic-size: .*; export without it$'):
            export_pruned(config, checkpoint, tmp_path / 'out', **ANY_SIZE)
        assert not (tmp_path / 'out').exists()
    else:
        report = export_pruned(config, checkpoint, tmp_path / 'out', **ANY_SIZE)
        assert report['onnx']['model.onnx']['inputs'] == ['batch', 3, 'height', 'width']
        assert report['onnx']['model.onnx']['outputs'] == [['batch', 10]]
    report = export_pruned(config, checkpoint, tmp_path / 'out', onnx=True, rounds=1)
    assert report['onnx']['model.onnx']['inputs'] == ['batch', 3, 32, 32]
    assert report['onnx']['model.onnx']['holds'] == 'scores of the classes, before the softmax'
    session = runtime.InferenceSession(str(tmp_path / 'out' / 'model.onnx'))
    images = torch.linspace(-1, 1, 2 * 3072).reshape(2, 3, 32, 32)
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = model.eval()(images, mode='tensor')
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)


def test_other_models_are_refused(tmp_path):
    """Nothing is known of how others are called."""
    config = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='SimCLR',
                backbone=dict(type='LeNet5'),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='ContrastiveHead', loss=dict(type='CrossEntropyLoss', loss_weight=1.0)
                ),
            ),
        )
    )
    model = build_dense(config)
    structure = dict(
        version=1,
        phase='finetune',
        target=dict(params=0.5),
        reached=dict(params=1.0),
        dense=dict(params=sum(p.numel() for p in model.parameters())),
        keep={},
        attrs={},
    )
    torch.save(
        {'meta': {META_KEY: structure}, 'state_dict': model.state_dict()}, tmp_path / 'own.pth'
    )
    with pytest.raises(ValueError, match='builds a SimCLR; only detectors of mmdet and classif'):
        export_pruned(config, tmp_path / 'own.pth', tmp_path / 'out')
