# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import importlib
import sys
from pathlib import Path

import pytest

from _utils.fake_packages import ORIGINAL, pretend
from mmdet_adasap.env import remedies

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(('family', 'stack'), [('onedl', 'default'), ('original', 'original')])
def test_versions_are_those_that_make_installs(family, stack, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'dev')
    for name in ('mmcv_wheel', 'setup_env'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    setup_env = importlib.import_module('setup_env')
    table = remedies.FORKS if family == 'onedl' else remedies.ORIGINALS
    names = [(table.get(name) or (name,))[0] for name in remedies.PINNED[family]]
    pinned = setup_env.STACKS[stack].pinned(*names)
    versions = remedies.PINNED[family].values()
    assert pinned == [f'{name}=={version}' for name, version in zip(names, versions, strict=True)]
    last = max(setup_env.STACKS[stack].pythons)
    assert remedies.LAST_PYTHON[family] == last
    assert remedies.TARGETS[family] == f'make {setup_env.STACKS[stack].target}'


def test_torch_for_a_python_that_it_has_no_build_for(monkeypatch):
    pretend(monkeypatch, {k: v for k, v in ORIGINAL.items() if not k.startswith('torch')})
    monkeypatch.setattr(remedies.sys, 'version_info', (3, 12, 1))
    assert (
        remedies.Remedies.of_this_environment()
        .install('torch')
        .startswith('an environment of Python 3.11, the last that')
    )


def test_an_error_that_refuses_no_version():
    here = remedies.Remedies.of_this_environment()
    assert here.refused_version('mmdet', 'AssertionError: bad version') is None
