# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What importing the package loads and registers, each case in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# mmdet and mmpretrain are imported several times; test_registry.py is quick.
pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
OPENMMLAB = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')

# Hide packages as if they were not installed, run a program, and tell what is loaded then.
PROGRAM = """
import json, sys
from importlib.machinery import PathFinder
hidden, find_spec = set(sys.argv[2:]), PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *args: None if name.split('.')[0] in hidden else find_spec(name, *args)
)
found = {}
exec(sys.argv[1])
loaded = [name for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain') if name in sys.modules]
print('RESULT', json.dumps([loaded, found]))
"""


def run(program, *hidden, path=None):
    """What of OpenMMLab is loaded after a program, and what it put into ``found``."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, filter(None, [path])))}
    done = subprocess.run(
        [sys.executable, '-W', 'error::RuntimeWarning', '-c', PROGRAM, program, *hidden],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = next(line for line in done.stdout.splitlines() if line.startswith('RESULT'))
    return json.loads(result.removeprefix('RESULT'))


HOOKS = """
import mmdet_adasap, mmengine.runner
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
found['hook'], found['wrapper'] = 'AdaSAPHook' in HOOKS, 'AdaSAPOptimWrapper' in OPTIM_WRAPPERS
"""
DATASETS = """
import mmdet_adasap
from mmengine.registry import DATASETS
with DATASETS.switch_scope_and_registry(SCOPE) as registry:
    names = ('CorruptedVOCDataset', 'CIFAR10C', 'ImageNetC', 'ImageNetV2')
    found['datasets'] = [name for name in names if registry.get(name)]
"""


@pytest.mark.parametrize(
    'module', ['sharpness', 'pruning', 'robustness.corruptions', 'errors', 'env', 'cli.main']
)
def test_plain_parts_load_nothing_of_openmmlab(module):
    assert run(f'import mmdet_adasap.{module}') == [[], {}]


def test_plain_parts_where_nothing_of_it_is_installed():
    program = 'import mmdet_adasap.sharpness, mmdet_adasap.pruning'
    assert run(program, *OPENMMLAB) == [[], {}]


def test_plain_parts_patch_nothing():
    program = """
from mmengine.runner import checkpoint
before = checkpoint._load_checkpoint_to_model
del sys.modules['mmengine.runner']
import mmdet_adasap.sharpness, mmdet_adasap.pruning
found['same'] = checkpoint._load_checkpoint_to_model is before
"""
    pytest.importorskip('mmengine')
    assert run(program)[1] == {'same': True}


@pytest.mark.parametrize(
    'first',
    [
        'import mmdet_adasap',
        'import mmengine.runner',
        'import mmdet_adasap.apis',
        'import mmdet_adasap.robustness.engine',
        'import mmdet_adasap.sharpness',
        'from mmdet_adasap.hooks import AdaSAPHook',
    ],
)
def test_registered_whatever_is_imported_first(first):
    pytest.importorskip('mmengine')
    loaded, found = run(first + HOOKS)
    assert found == {'hook': True, 'wrapper': True}
    assert not {'mmdet', 'mmpretrain'} & set(loaded)


@pytest.mark.parametrize(
    ('scope', 'other', 'datasets'),
    [
        ('mmdet', 'mmpretrain', ['CorruptedVOCDataset']),
        ('mmpretrain', 'mmdet', ['CIFAR10C', 'ImageNetC', 'ImageNetV2']),
    ],
)
def test_a_library_is_not_loaded_for_the_other(scope, other, datasets):
    pytest.importorskip(scope)
    program = DATASETS.replace('SCOPE', repr(scope))
    loaded, found = run(program)
    assert found == {'datasets': datasets}
    assert other not in loaded
    assert run(program, other)[1] == found  # nor need it be installed


@pytest.mark.parametrize(
    ('config', 'scope'),
    [
        ('demo/adasap_yolox_tiny-voc.py', 'mmdet'),
        ('demo/adasap_resnet18_tiny-imagenet.py', 'mmpretrain'),
    ],
)
def test_a_config_loads_what_its_library_loads(config, scope):
    """mmdet's models import mmpretrain where that is installed, and the reverse; ours do not."""
    pytest.importorskip(scope)
    program = f"""
from mmdet_adasap.apis import build_dense
from mmengine.config import Config
from mmengine.registry import HOOKS, TRANSFORMS
config = Config.fromfile('configs/{config}')
build_dense(config)
for hook in config.default_hooks.values():
    HOOKS.build(hook)
for step in config.test_dataloader.dataset.pipeline:
    TRANSFORMS.build(step)
"""
    alone, _ = run(f'import {scope}.models, {scope}.datasets, {scope}.evaluation, mmengine.runner')
    assert run(program)[0] == alone


@pytest.mark.skipif(importlib.util.find_spec('mmengine') is None, reason='mmengine is missing')
@pytest.mark.parametrize('package', ['mmdet', 'mmpretrain'])
def test_a_broken_library_is_left_to_those_who_import_it(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / '__init__.py').write_text("raise ImportError('no mmcv._ext')")
    program = f"""{HOOKS}
try:
    import {package}.datasets
except ImportError as error:
    found['error'] = str(error)
"""
    _, found = run(program, path=tmp_path)
    assert found == {'hook': True, 'wrapper': True, 'error': 'no mmcv._ext'}
