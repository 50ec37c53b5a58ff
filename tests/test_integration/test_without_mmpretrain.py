# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Detectors where mmpretrain is not installed. The reverse: test_configs_train_classifiers.py."""

import json

import pytest

from _utils.environments import ROOT, python, without

pytest.importorskip('mmdet')

from builtin_sets.tiny_voc import build_tiny_voc
from mmdet_adasap.env import find_tool

PRUNED = """
import json
from importlib.util import find_spec
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS
import mmdet_adasap
from mmdet_adasap.apis import build_dense, prune_model
model = build_dense('configs/demo/dense_yolox_tiny-voc.py')
left = prune_model(model, target=dict(params=0.5))['reached']['params']
places = dict(AdaSAPHook=HOOKS, AdaSAPOptimWrapper=OPTIM_WRAPPERS, MobileNetV1=MODELS)
registered = [name in registry for name, registry in places.items()]
print(json.dumps([find_spec('mmpretrain') is None, find_spec('mmdet') is None, registered, left]))
"""


@pytest.fixture(scope='module')
def without_mmpretrain(tmp_path_factory) -> dict:
    return without(tmp_path_factory.mktemp('without_mmpretrain'), 'mmpretrain')


@pytest.mark.slow  # that it imports and registers is in test_install.py
def test_registers_and_prunes(without_mmpretrain, monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = python(without_mmpretrain, '-c', PRUNED).splitlines()[-1]
    no_mmpretrain, no_mmdet, registered, left = json.loads(printed)
    assert no_mmpretrain
    assert not no_mmdet
    assert registered == [True, True, True]
    assert 0.49 < left <= 0.5


@pytest.mark.slow
def test_trains_through_the_cut(without_mmpretrain, tmp_path):
    build_tiny_voc(tmp_path / 'data', train=8, val=2, test=2)
    options = dict(
        load_from=None,
        train_dataloader=dict(batch_size=2, dataset=dict(data_root=f'{tmp_path}/data/VOCdevkit/')),
        val_dataloader=dict(dataset=dict(data_root=f'{tmp_path}/data/VOCdevkit/')),
        test_dataloader=dict(dataset=dict(data_root=f'{tmp_path}/data/VOCdevkit/')),
        train_cfg=dict(max_epochs=3, val_interval=3),
    )
    base = ROOT / 'configs' / 'demo' / 'adasap_yolox_tiny-voc.py'
    lines = [f'{key} = {value!r}' for key, value in options.items()]
    hooks = 'default_hooks = dict(adasap=dict(warmup=1, prune=1, interval=1))'
    config = tmp_path / 'config.py'
    config.write_text('\n'.join([f'_base_ = {str(base)!r}', *lines, hooks]))
    python(without_mmpretrain, find_tool('train'), config, '--work-dir', tmp_path)
    python(
        without_mmpretrain,
        *(find_tool('test'), config, tmp_path / 'epoch_3.pth', '--work-dir', tmp_path / 'test'),
    )
    assert list((tmp_path / 'test').glob('*/*.json'))
