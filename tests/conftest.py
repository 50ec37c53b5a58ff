# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What every test needs, and fixtures that tests of several folders share.

The folders of `_utils`, `builtin_sets` and `demo_parts` are on the path by `pythonpath` in
pyproject.toml.
"""

import runpy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from builtin_sets.tiny_voc import build_tiny_voc
from builtin_sets.tiny_voc_scenes import load_photo
from mmdet_adasap.cli.main import main

ROOT = Path(__file__).parents[1]
# Two threads on a busy machine are slower than one, and the last bits of sums depend on how many.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_default_scope() -> Iterator[None]:
    """Forget mmengine's default scope, which a Runner sets for all tests that come after it."""
    yield
    # There is no public way: DefaultScope is a ManagerMixin, and that keeps every instance.
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def tiny_voc_settings() -> dict[str, int]:
    """Arguments of build_tiny_voc for the set in `tiny_voc_folder`: few and small images."""
    return {'seed': 3, 'train': 4, 'val': 3, 'test': 2, 'size': 96}


@pytest.fixture(scope='session')
def tiny_voc_folder(tmp_path_factory, tiny_voc_settings) -> Path:
    """Folder of the built-in VOC set, which holds `VOCdevkit`; not to be written to."""
    out = tmp_path_factory.mktemp('data') / 'tiny_voc'
    build_tiny_voc(out, **tiny_voc_settings)
    return out


@pytest.fixture(scope='session')
def photo() -> np.ndarray:
    """A photograph of scikit-learn, uint8, (427, 640, 3), RGB; not to be written to."""
    return np.array(load_photo('china.jpg'))


@pytest.fixture
def run_tool(monkeypatch, capsys) -> Callable[..., tuple[object, str, str]]:
    """Run a program of tools/ in this process, which spares the seconds that imports take.

    Returns:
        Callable: Takes the program's path in tools/ and its arguments; returns what it ended with
            (None, a status or a message) and what it wrote to stdout and to stderr.
    """
    monkeypatch.chdir(ROOT)

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


@pytest.fixture
def adasap(monkeypatch, capsys) -> Callable[..., tuple[object, str, str]]:
    """Run ``adasap`` in this process.

    Returns:
        Callable: Takes the command and its arguments, and the program's path by name; returns what
            it ended with (None, a status or a message) and what it wrote to stdout and to stderr.
    """

    def run(*arguments: object, program: str = '/usr/bin/adasap') -> tuple[object, str, str]:
        monkeypatch.setattr(sys, 'argv', [program, *map(str, arguments)])
        with warnings.catch_warnings():
            try:
                code = main()
            except SystemExit as stopped:
                code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
