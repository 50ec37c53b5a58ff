# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What importing the package loads and registers, each case in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
OPENMMLAB = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')

# For each line of input fork a process, in which packages are hidden as if they were not
# installed and a program is run, and tell what is loaded then. The server has imported what takes
# longest and is nothing of OpenMMLab.
SERVER = """
import json, os, signal, sys, traceback
from importlib import import_module
from importlib.machinery import PathFinder
for name in 'torch torchvision cv2 matplotlib.pyplot imgaug pycocotools.coco rich'.split():
    try:
        import_module(name)
    except ImportError:
        pass
find_spec = PathFinder.find_spec

def run(program, hidden, path):
    PathFinder.find_spec = classmethod(
        lambda cls, name, path=None, target=None: (
            None if name.split('.')[0] in hidden else find_spec(name, path, target)
        )
    )
    sys.path[:0] = path
    found = {}
    try:
        exec(program, dict(found=found, sys=sys, import_module=import_module))
    except BaseException:
        return dict(error=traceback.format_exc())
    loaded = [name for name in ('mmengine', 'mmcv', 'mmdet', 'mmpretrain') if name in sys.modules]
    return dict(result=[loaded, found])

for line in sys.stdin:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(100)  # ends what hangs
        os.dup2(2, 1)  # what is printed is no result
        os.write(writing, json.dumps(run(*json.loads(line))).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    print(answer or json.dumps(dict(error='the process was ended, by an alarm if it hung')))
    sys.stdout.flush()
"""


@pytest.fixture(scope='module')
def run():
    """Runs a program; gives what of OpenMMLab is loaded then, and what it put into ``found``."""
    server = subprocess.Popen(
        [sys.executable, '-W', 'error::RuntimeWarning', '-c', SERVER],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': ''},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask(program, *hidden, path=None):
        request = [program, hidden, [str(path)] if path else []]
        server.stdin.write(json.dumps(request) + '\n')
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        assert 'error' not in answer, answer['error']
        return answer['result']

    with server:
        yield ask
        server.stdin.close()


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
    'module',
    [
        *('sharpness', 'pruning', 'robustness.corruptions', 'errors', 'env', 'cli.main'),
        *('cli.robustness_command', 'cli.corrupt_command'),
    ],
)
def test_plain_parts_load_nothing_of_openmmlab(run, module):
    assert run(f'import mmdet_adasap.{module}') == [[], {}]


def test_plain_parts_where_nothing_of_it_is_installed(run):
    program = 'import mmdet_adasap.sharpness, mmdet_adasap.pruning'
    assert run(program, *OPENMMLAB) == [[], {}]


def test_plain_parts_patch_nothing(run):
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
        'import mmdet_adasap, mmengine.hub',
    ],
)
def test_registered_whatever_is_imported_first(run, first):
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
def test_a_library_is_not_loaded_for_the_other(run, scope, other, datasets):
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
def test_a_config_loads_what_its_library_loads(run, config, scope):
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
def test_a_broken_library_is_left_to_those_who_import_it(run, tmp_path, package):
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


class TestImports:
    """What else may happen to an import."""

    @pytest.fixture(autouse=True)
    def needs_mmengine(self):
        pytest.importorskip('mmengine')

    def test_two_threads(self, run):
        """One imports mmengine, and the other one what needs it."""
        program = f"""
import threading, time, mmdet_adasap
thread = threading.Thread(target=import_module, args=('mmengine.runner',))
thread.start()
while 'mmengine' not in sys.modules:
    time.sleep(0.001)
import mmdet_adasap.hooks
thread.join()
{HOOKS}"""
        assert run(program)[1] == {'hook': True, 'wrapper': True}

    def test_library_whose_import_fails_at_first(self, run, tmp_path):
        package = tmp_path / 'mmdet' / 'datasets'
        package.mkdir(parents=True)
        (tmp_path / 'mmdet' / '__init__.py').touch()
        (package / '__init__.py').write_text('import sys\nassert hasattr(sys, "mended")')
        program = """
import mmdet_adasap.registration as registration
registration.PARTS['mmdet.datasets'] = ('sys:count',)
sys.count = lambda: found.update(count=found.get('count', 0) + 1)
for _ in range(2):
    try:
        import mmdet.datasets
    except AssertionError:
        found['failed'] = found.get('count', 0)
        sys.mended = True
"""
        assert run(program, path=tmp_path)[1] == {'failed': 0, 'count': 1}

    def test_part_that_fails_is_tried_again(self, run):
        program = f"""
import mmdet_adasap.registration as registration
parts = registration.PARTS['mmengine.runner']
registration.PARTS['mmengine.runner'] = ('mmdet_adasap.no_such_part',)
try:
    import mmdet_adasap.hooks
except ModuleNotFoundError as error:
    found['error'] = error.name
registration.PARTS['mmengine.runner'] = parts
import mmdet_adasap.models
{HOOKS}"""
        expected = {'error': 'mmdet_adasap.no_such_part', 'hook': True, 'wrapper': True}
        assert run(program)[1] == expected

    def test_part_that_fails_with_its_library(self, run):
        """What else is imported of ours does not fail for that, and the library may come again."""
        program = f"""
import mmdet_adasap.registration as registration
parts = registration.PARTS['mmengine.runner']
registration.PARTS['mmengine.runner'] = ('mmdet_adasap.no_such_part',)
try:
    import mmengine.runner
except ModuleNotFoundError as error:
    found['error'] = error.name
import mmdet_adasap.sharpness
registration.PARTS['mmengine.runner'] = parts
{HOOKS}"""
        expected = {'error': 'mmdet_adasap.no_such_part', 'hook': True, 'wrapper': True}
        assert run(program)[1] == expected

    def test_module_of_ours_that_fails(self, run, tmp_path):
        """The others are registered nevertheless."""
        (tmp_path / 'more').mkdir()
        (tmp_path / 'more' / 'failing.py').write_text('import mmengine.runner\n1 / 0')
        program = f"""
import mmdet_adasap
mmdet_adasap.__path__.append({str(tmp_path / 'more')!r})
try:
    import mmdet_adasap.failing
except ZeroDivisionError:
    found['failed'] = True
found['loaded'] = 'mmdet_adasap.hooks' in sys.modules
{HOOKS}"""
        _, found = run(program)
        assert found == {'failed': True, 'loaded': True, 'hook': True, 'wrapper': True}

    def test_reloaded(self, run):
        program = f"""
import importlib, mmdet_adasap, mmdet_adasap.registration, mmengine.runner
for module in (mmdet_adasap, mmdet_adasap.registration, mmdet_adasap, mmengine.runner):
    importlib.reload(module)
import mmcv.transforms
from mmengine.registry import TRANSFORMS
found['transform'] = 'ImageCorruption' in TRANSFORMS
{HOOKS}"""
        expected = {'transform': True, 'hook': True, 'wrapper': True}
        assert run(program)[1] == expected

    def test_modules_look_as_without_it(self, run):
        program = """
import mmdet_adasap.hooks, inspect
from importlib.machinery import SourceFileLoader
modules = [sys.modules[name] for name in ('mmengine.runner', 'mmdet_adasap.hooks')]
found['same'] = [m.__loader__ is m.__spec__.loader for m in modules]
found['types'] = [type(m.__loader__) is SourceFileLoader for m in modules]
found['source'] = [bool(inspect.getsource(m)) for m in modules]
"""
        found = run(program)[1]
        assert found == {key: [True, True] for key in ('same', 'types', 'source')}

    def test_loader_that_serves_several_modules(self, run, tmp_path):
        """As that of a zip file does: what is imported beside a library is no library."""
        with ZipFile(tmp_path / 'packages.zip', 'w') as archive:
            for name in ('mmdet', 'mmdet/datasets', 'mmdet/other'):
                archive.writestr(f'{name}/__init__.py', '')
        program = """
import mmdet_adasap.registration as registration
registration.PARTS['mmdet.datasets'] = ('sys:count',)
sys.count = lambda: found.update(count=found.get('count', 0) + 1)
class Old:  # as finders were before Python 3.4
    find_module = lambda self, *args: None
sys.meta_path.append(Old())
sys.meta_path.insert(0, Old())
import mmdet.datasets, mmdet.other
"""
        assert run(program, path=tmp_path / 'packages.zip')[1] == {'count': 1}
