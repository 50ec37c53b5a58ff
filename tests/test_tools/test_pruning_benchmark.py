# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""tools/benchmarks/pruning.py on a tiny network, without Torch-Pruning."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
OURS = {'forward', 'trace', 'pruner', 'event', 'event_rounded'}


@pytest.fixture(scope='module')
def tool():
    """The tool as a module."""
    path = ROOT / 'tools' / 'benchmarks' / 'pruning.py'
    spec = importlib.util.spec_from_file_location('pruning_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def net():
    layers = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1)
    return nn.Sequential(*layers)


def forward(model: nn.Module) -> torch.Tensor:
    return model(torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8))


class TestMeasure:
    @pytest.mark.long
    def test_ours_alone(self, tool, net):
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        result = tool.measure(net, forward, repeats=2, with_peer=False)
        assert result['parameters'] == 3 * 9 * 16 + 3 * 16 + 16 * 4 + 4
        assert result['ours'] == {
            'groups': 1,
            'left': (3 * 9 * 8 + 3 * 8 + 8 * 4 + 4) / result['parameters'],
            'whole': {},
        }
        assert result['seconds'].keys() == OURS
        assert all(len(times) == 2 for times in result['times'].values())
        assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
        assert '|  yes |' in tool.report({'net': result})

    def test_failure_of_one_tool_does_not_stop_the_other(self, tool, net, monkeypatch):
        def fail(*_):
            raise RuntimeError('no\nluck')

        monkeypatch.setattr(tool, 'prune_ours', fail)
        monkeypatch.setattr(tool, 'prune_peer', lambda *_: {'left': 0.5})
        result = tool.measure(net, forward, repeats=1)
        assert result['ours'] == {'error': 'RuntimeError: no'}
        assert result['peer'] == {'left': 0.5}
        assert 'net, ours: RuntimeError: no' in tool.report({'net': result})

    @pytest.mark.long
    def test_peer_is_helped_only_where_it_fails_alone(self, tool, net, monkeypatch):
        def peer(model, forward, ignored, watch):
            return {'left': 0.5} if '0' in ignored else {'left': 0.4, 'error': 'shapes'}

        monkeypatch.setattr(tool, 'prune_peer', peer)
        alone = tool.measure(net, forward, ('0',), ('1',), repeats=1)
        assert alone['peer'] == {'left': 0.5}
        helped = tool.measure(net, forward, ('3',), ('0',), repeats=1)
        assert helped['peer'] == {'left': 0.5, 'helped': 'needs 0 left whole; else shapes'}

    @pytest.mark.long
    def test_peer_without_end(self, tool, net, monkeypatch):
        def peer(*_):
            while True:
                pass

        monkeypatch.setattr(tool, 'prune_peer', peer)
        monkeypatch.setattr(tool, 'LIMIT', 1)
        result = tool.measure(net, forward, repeats=1)
        assert result['peer'] == {'error': 'TimeoutError: not done after 1 s'}


@pytest.mark.long
def test_without_torch_pruning(tool, net, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, 'torch_pruning', None)  # importing it raises
    monkeypatch.setattr(tool, 'build', lambda config: net)
    monkeypatch.setattr(tool, 'build_forward', lambda model, size: forward)
    out = tmp_path / 'figures.json'
    arguments = ['pruning.py', '--models', 'ssd300', '--repeats', '1', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', arguments)
    tool.main()
    printed = capsys.readouterr().out
    assert 'pip install -r requirements/benchmarks.txt' in printed
    assert '[1/1] ssd300' in printed
    found = json.loads(out.read_text())
    assert found['peer'] is None
    assert found['models']['ssd300']['seconds'].keys() == OURS
