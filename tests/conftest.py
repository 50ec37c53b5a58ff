# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

TESTS = Path(__file__).parent
# Helpers of the tests, and the makers of the built-in sets, which are no part of the package.
sys.path[:0] = [str(TESTS), str(TESTS.parent / 'tools' / 'demo')]
# Two threads on a busy machine are slower than one, and the results then depend on both.
torch.set_num_threads(1)
TINY_VOC = {'seed': 3, 'train': 4, 'val': 3, 'test': 2, 'size': 96}


@pytest.fixture(autouse=True)
def no_default_scope():
    """A Runner of one test sets mmengine's default scope for all that come after it."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def settings() -> dict[str, int]:
    """How the small set of :func:`tiny_voc` is made."""
    return dict(TINY_VOC)


@pytest.fixture(scope='session')
def tiny_voc(tmp_path_factory) -> Path:
    """Folder of a small set; not to be written to."""
    from builtin_sets.tiny_voc import build_tiny_voc

    out = tmp_path_factory.mktemp('data') / 'tiny_voc'
    build_tiny_voc(out, **TINY_VOC)
    return out


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
    """A real photograph, uint8, (427, 640, 3), RGB."""
    from builtin_sets.tiny_voc_scenes import load_photo

    return np.array(load_photo('china.jpg'))


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs a program of tools/ in this process; gives its exit code and what it printed."""
    monkeypatch.chdir(TESTS.parent)

    def run(tool: str, *arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        code = None
        with warnings.catch_warnings():
            try:
                runpy.run_path(f'tools/{tool}', run_name='__main__')
            except SystemExit as stopped:
                code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
