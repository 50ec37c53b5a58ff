# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What importing the package loads and registers, each case in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

# mmdet and mmpretrain are imported several times; test_registry.py is quick.
pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
OPENMMLAB = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')

# Runs programs and tells what each has loaded and put into `found`. It forks for each, so that
# nothing of another program is imported there; torch, which is no part of OpenMMLab and takes
# most of the time, is imported once.
RUNNER = """
import json, os, sys, traceback
from importlib.machinery import PathFinder
import torch
find_spec = PathFinder.find_spec
for name, (program, hidden, folder) in json.load(sys.stdin).items():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    # Packages look as if they were not installed.
    PathFinder.find_spec = classmethod(
        lambda cls, name, *args: None if name.split('.')[0] in hidden else find_spec(name, *args)
    )
    sys.path[:0] = [folder] if folder else []
    found, error = {}, ''
    try:
        exec(program, {'found': found, 'sys': sys})
    except BaseException:
        error = traceback.format_exc()
    loaded = [name for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain') if name in sys.modules]
    print('RESULT', json.dumps([name, loaded, found, error]), flush=True)
    os._exit(0)
"""

HOOKS = """
import mmdet_adasap, mmengine.runner
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
found['hook'], found['wrapper'] = 'AdaSAPHook' in HOOKS, 'AdaSAPOptimWrapper' in OPTIM_WRAPPERS
"""
DATASETS = """
import mmdet_adasap
from mmengine.registry import DATASETS
with DATASETS.switch_scope_and_registry({scope!r}) as registry:
    names = ('CorruptedVOCDataset', 'CIFAR10C', 'ImageNetC', 'ImageNetV2')
    found['datasets'] = [name for name in names if registry.get(name)]
"""
PATCHES = """
from mmengine.runner import checkpoint
before = checkpoint._load_checkpoint_to_model
del sys.modules['mmengine.runner']
import mmdet_adasap.sharpness, mmdet_adasap.pruning
found['same'] = checkpoint._load_checkpoint_to_model is before
"""
CONFIG = """
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
BROKEN = """
try:
    import {library}.datasets
except ImportError as error:
    found['error'] = str(error)
"""
PLAIN = ('sharpness', 'pruning', 'robustness.corruptions', 'errors', 'env', 'cli.main')
FIRST = (
    'import mmdet_adasap',
    'import mmengine.runner',
    'import mmdet_adasap.apis',
    'import mmdet_adasap.robustness.engine',
    'import mmdet_adasap.sharpness',
    'from mmdet_adasap.hooks import AdaSAPHook',
)
CONFIGS = {
    'mmdet': 'demo/adasap_yolox_tiny-voc.py',
    'mmpretrain': 'demo/adasap_resnet18_tiny-imagenet.py',
}
OTHER = {'mmdet': 'mmpretrain', 'mmpretrain': 'mmdet'}


class Program(NamedTuple):
    """A program, packages that are hidden from it, and a folder in front of its path."""

    text: str
    hidden: tuple[str, ...] = ()
    folder: str = ''


def programs(broken: Path) -> dict[str, Program]:
    """What the tests here look at; in `broken` are folders of libraries that raise."""
    made = {module: Program(f'import mmdet_adasap.{module}') for module in PLAIN}
    plain = 'import mmdet_adasap.sharpness, mmdet_adasap.pruning'
    made['nothing installed'] = Program(plain, OPENMMLAB)
    made['patches'] = Program(PATCHES)
    made |= {first: Program(first + HOOKS) for first in FIRST}
    for library, other in OTHER.items():
        datasets = DATASETS.format(scope=library)
        made[f'datasets of {library}'] = Program(datasets)
        made[f'datasets of {library} alone'] = Program(datasets, (other,))
        parts = ', '.join(f'{library}.{part}' for part in ('models', 'datasets', 'evaluation'))
        made[f'{library} itself'] = Program(f'import {parts}, mmengine.runner')
        made[f'config for {library}'] = Program(CONFIG.format(config=CONFIGS[library]))
        text = HOOKS + BROKEN.format(library=library)
        made[f'broken {library}'] = Program(text, folder=str(broken / library))
    return made


class Loaded(NamedTuple):
    """What of OpenMMLab is loaded after a program, and what it put into `found`."""

    packages: list[str]
    found: dict


@pytest.fixture(scope='module')
def after(tmp_path_factory):
    """Function that gives what there is after the program of a name."""
    broken = tmp_path_factory.mktemp('broken')
    for library in OTHER:
        package = broken / library / library
        package.mkdir(parents=True)
        (package / '__init__.py').write_text("raise ImportError('no mmcv._ext')")
    done = subprocess.run(
        [sys.executable, '-W', 'error::RuntimeWarning', '-c', RUNNER],
        input=json.dumps(programs(broken)),
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('RESULT ')]
    results = [json.loads(line.removeprefix('RESULT ')) for line in lines]
    results = {name: result for name, *result in results}

    def loaded(name: str) -> Loaded:
        assert name in results, done.stderr
        packages, found, error = results[name]
        assert not error, error
        return Loaded(packages, found)

    return loaded


@pytest.mark.parametrize('module', PLAIN)
def test_plain_parts_load_nothing_of_openmmlab(after, module):
    assert after(module) == ([], {})


def test_plain_parts_where_nothing_of_it_is_installed(after):
    assert after('nothing installed') == ([], {})


def test_plain_parts_patch_nothing(after):
    pytest.importorskip('mmengine')
    assert after('patches').found == {'same': True}


@pytest.mark.parametrize('first', FIRST)
def test_registered_whatever_is_imported_first(after, first):
    pytest.importorskip('mmengine')
    loaded, found = after(first)
    assert found == {'hook': True, 'wrapper': True}
    assert not {'mmdet', 'mmpretrain'} & set(loaded)


@pytest.mark.parametrize(
    ('library', 'datasets'),
    [
        ('mmdet', ['CorruptedVOCDataset']),
        ('mmpretrain', ['CIFAR10C', 'ImageNetC', 'ImageNetV2']),
    ],
)
def test_a_library_is_not_loaded_for_the_other(after, library, datasets):
    pytest.importorskip(library)
    loaded, found = after(f'datasets of {library}')
    assert found == {'datasets': datasets}
    assert OTHER[library] not in loaded
    assert after(f'datasets of {library} alone').found == found  # nor need it be installed


@pytest.mark.parametrize('library', CONFIGS)
def test_a_config_loads_what_its_library_loads(after, library):
    """mmdet's models import mmpretrain where that is installed, and the reverse; ours do not."""
    pytest.importorskip(library)
    assert after(f'config for {library}').packages == after(f'{library} itself').packages


@pytest.mark.parametrize('library', OTHER)
def test_a_broken_library_is_left_to_those_who_import_it(after, library):
    pytest.importorskip('mmengine')
    found = after(f'broken {library}').found
    assert found == {'hook': True, 'wrapper': True, 'error': 'no mmcv._ext'}
