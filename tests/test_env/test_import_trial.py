# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pytest

from mmdet_adasap.env.import_trial import PACKAGE, try_imports

SOURCES = {
    'is_sound': 'print("noise")\nimport os\nos.system("echo noise of another process")',
    'raises': 'raise AttributeError("no\\nattribute")',
    'says_much': 'raise ImportError("first " + "x" * 5000 + " last")',
    'exits': 'import sys\nsys.exit("not here")',
    'crashes': 'import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)',
    'aborts': 'import os\nos.write(2, b"terminate called\\n")\nos.abort()',
    'leaves': 'import os\nos._exit(3)',
    'leaves_as_if_done': 'import os\nos._exit(0)',
    'hangs': 'import time\ntime.sleep(60)',
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    for name, text in SOURCES.items():
        (tmp_path / f'{name}.py').write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_what_imports_raise(sources):
    errors = try_imports(['raises', 'is_sound', 'exits', 'says_much', 'missing_one']).errors
    assert errors['is_sound'] == ''
    assert errors['raises'] == 'AttributeError: no attribute'
    assert errors['exits'] == 'SystemExit: not here'
    assert errors['missing_one'] == "ModuleNotFoundError: No module named 'missing_one'"
    assert len(errors['says_much']) < 450
    assert errors['says_much'].startswith('ImportError: first x')
    assert errors['says_much'].endswith('x last')


@pytest.mark.parametrize(
    ('name', 'error'),
    [
        ('crashes', 'it ended Python with SIGSEGV'),
        ('aborts', 'it ended Python with SIGABRT: terminate called'),
        ('leaves', 'it ended Python with status 3'),
        ('leaves_as_if_done', 'it ended Python with status 0'),
    ],
)
def test_a_module_that_ends_python(sources, name, error):
    assert try_imports(['is_sound', name, 'raises']).errors == {'is_sound': '', name: error}


def test_a_module_that_hangs(sources):
    errors = try_imports(['is_sound', 'hangs', 'raises'], limit=2).errors
    assert errors == {'is_sound': '', 'hangs': 'it was not done after 2 s'}


def test_the_package_with_what_it_registers(tmp_path, monkeypatch):
    """A library that breaks when ours registers with it is broken in training, too."""
    for folder in ('mmengine', 'mmengine/runner'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / '__init__.py').touch()
    (tmp_path / 'mmengine' / 'runner' / '__init__.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    assert try_imports([PACKAGE]).errors == {PACKAGE: 'ZeroDivisionError: division by zero'}
