# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The criteria that tools/benchmarks/criteria.py compares with ours, and its table."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_adasap.pruning import Pruner, named_tensors
from mmdet_adasap.registry import IMPORTANCES, build

PATH = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'criteria.py'


@pytest.fixture(scope='module')
def tool():
    """The tool as a module; what it registers goes when the tests are over."""
    sys.path.insert(0, str(PATH.parent))  # where it finds its models
    spec = importlib.util.spec_from_file_location('criteria_benchmark', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(PATH.parent))
    yield module
    IMPORTANCES.module_dict.pop('GroupMagnitudeImportance', None)


@pytest.fixture
def net():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.Conv2d(40, 20, 1), nn.Conv2d(20, 4, 1)
    net = nn.Sequential(*layers)
    nn.init.uniform_(net[1].weight)
    return net


def forward(model: nn.Module) -> torch.Tensor:
    return model(torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8))


def test_group_magnitude_is_the_mean_square_of_all_parts_over_its_mean(tool, net):
    pruner = Pruner(net, forward, dict(params=0.5), tool.GroupMagnitudeImportance())
    group = pruner.channels.groups[0]
    found = pruner.importance.scores(group, named_tensors(net), torch.ones(40, dtype=torch.bool))
    conv, norm, reader = net[0].weight, net[1].weight, net[2].weight
    parts = [conv.square().sum((1, 2, 3)), norm.square(), reader.square().sum((0, 2, 3))]
    expected = torch.stack(parts).mean(0)
    torch.testing.assert_close(found, expected / expected.mean())


def test_uniform_arms_are_of_the_package(tool):
    found = {label: tool.ARMS[label]['importance'] for label in tool.ARMS if 'uniform' in label}
    assert {importance['type'] for importance in found.values()} == {'UniformWidth'}
    assert build(IMPORTANCES, found['uniform, magnitude'], 'importance').within.startswith('Magn')
    assert build(IMPORTANCES, found['uniform, Taylor'], 'importance').within.startswith('Taylor')


def test_table_has_the_mean_and_deviation_over_seeds(tool):
    line = dict(model='resnet', training='long', arm='Taylor', params=0.4, flops=0.5)
    lines = [
        line | dict(seed=seed, dense=70.0 + seed, after=60.0 + seed, end=65.0 + seed)
        for seed in range(3)
    ]
    lines.append(line | dict(arm='magnitude', seed=0, dense=70.0, error='cannot be reached'))
    table = tool.table(lines)
    assert 'resnet, long training, dense 71.000 ± 1.000, 3 seeds' in table
    assert '| Taylor | 61.000 ± 1.000 | 66.000 ± 1.000 | 0.40 | 0.50 |' in table
    assert '| magnitude | cannot be reached' in table
    assert np.isclose(float(tool.spread([1.0]).split()[0]), 1)


def test_readme_arm_is_the_block_of_readme(tool):
    hook = tool.hook_of(tool.README)
    assert (hook['type'], hook['importance']['type']) == ('AdaSAPHook', 'TaylorImportance')
    assert hook['target'] == dict(params=0.4)


def test_every_model_has_a_config(tool, tmp_path):
    for make, *_ in tool.MODELS.values():
        cfg = make(tmp_path)
        assert str(tmp_path) in str(cfg.train_dataloader.dataset.data_root)
