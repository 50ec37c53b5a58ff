# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""tools/benchmarks/optimizers.py on one optimizer of each kind."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    """The tool as a module."""
    path = ROOT / 'tools' / 'benchmarks' / 'optimizers.py'
    spec = importlib.util.spec_from_file_location('optimizers_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
@pytest.mark.parametrize(
    ('name', 'verdict'),
    [('SGD', 'trains'), ('Muon', 'trains'), ('Adafactor', 'refused'), ('LBFGS', 'no use')],
)
def test_verdicts(tool, tmp_path, name, verdict):
    kind = tool.optimizers_of('torch.optim').get(name)
    if kind is None:
        pytest.skip(f'this torch has no {name}')
    found, remark = tool.try_optimizer(kind, tmp_path)
    assert found == verdict, remark
    assert (name in remark) == (verdict != 'trains')
