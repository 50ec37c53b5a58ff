# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Every classification config as it is, through all three phases, on a handful of small images.

With mmpretrain alone: neither these runs nor its tools need mmdet.
"""

import json
import math
from pathlib import Path

import pytest
from mmengine.config import Config

from _utils.controls import ARMS, control_name, copy_with_controls
from _utils.environments import python, without

pytest.importorskip('mmpretrain')

from mmdet_adasap.env import find_tool

ROOT = Path(__file__).parents[2]
CASE = ROOT / 'tests' / '_utils' / 'classifier_case.py'
FOLDERS = ('demo', 'deit', 'mobilenet_v1', 'mobilenet_v2', 'resnet')
FILES = {
    p
    for folder in FOLDERS
    for p in (ROOT / 'configs' / folder).glob('*.py')
    if p.name.startswith(('adasap', 'control')) and not p.stem.endswith('_tiny-voc')
}
# Controls that are no files are written as the READMEs tell.
WRITTEN = {
    p.with_name(control_name(p, arm))
    for p in FILES
    for arm in ARMS
    if p.name.startswith('adasap_') and p.parent.name != 'demo'
}
RUNS = [p.relative_to(ROOT / 'configs') for p in sorted(FILES | WRITTEN)]
QUICK = [p for p in RUNS if p.name == 'adasap_resnet18_1xb128-coslr-30e_cifar10.py']
SLOW = [p for p in RUNS if p not in QUICK]


@pytest.fixture(scope='module')
def configs(tmp_path_factory) -> Path:
    return copy_with_controls(tmp_path_factory.mktemp('controls'))


@pytest.fixture(scope='module')
def without_mmdet(tmp_path_factory) -> dict:
    return without(tmp_path_factory.mktemp('without_mmdet'), 'mmdet')


@pytest.mark.long
def test_mmdet_is_not_there(without_mmdet):
    """What the other tests here take for granted."""
    code = 'from importlib.util import find_spec as f; print(f("mmdet"), bool(f("mmpretrain")))'
    assert python(without_mmdet, '-c', code).split() == ['None', 'True']


@pytest.mark.long
@pytest.mark.parametrize(
    'config',
    [*QUICK, *(pytest.param(path, marks=pytest.mark.slow) for path in SLOW)],
    ids=[path.stem for path in [*QUICK, *SLOW]],
)
def test_trains_and_tests(config, configs, tmp_path, without_mmdet):
    path = configs / config
    found = json.loads(python(without_mmdet, CASE, path, tmp_path).splitlines()[-1])
    print(json.dumps({'config': path.name, **found}))
    hook = Config.fromfile(path).default_hooks.adasap
    assert len(found['losses']) == 9
    assert all(map(math.isfinite, found['losses']))
    two_passes = hook.perturbation is not None
    assert [ratio != 1 for ratio in found['loss_ratios']] == [two_passes] * 9
    assert found['phase'] == 'finetune'
    assert 0.9 * hook.target.params < found['reached'] <= hook.target.params
    assert found['slim'] == round(found['reached'] * found['dense'])
    # By the unpruned config: the hook gives the model its slim shape.
    assert found['tested'] == pytest.approx(found['validated'], rel=1e-6)
    assert {key.partition('/')[0] for key in found['tested']} == {'accuracy', 'logits'}
    if config in QUICK:
        tool, checkpoint = find_tool('mmpretrain::test'), tmp_path / 'epoch_3.pth'
        folder = tmp_path / 'by_tool'
        python(without_mmdet, tool, tmp_path / 'config.py', checkpoint, '--work-dir', folder)
        (file,) = folder.glob('*/*.json')
        tested = json.loads(file.read_text())
        assert {key: tested[key] for key in found['tested']} == pytest.approx(
            found['tested'], rel=1e-6
        )
