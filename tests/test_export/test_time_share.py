# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Two networks that are timed beside each other."""

from functools import partial

import pytest
import torch
from torch import nn

from _utils.latency_case import bilinear_layer, table_json
from mmdet_adasap.export import network_time, time_share
from mmdet_adasap.latency import LatencyTable, measure_latency


class Counting(nn.Module):
    """Notes the threads that PyTorch has while it runs."""

    seen: list[int] = []

    def forward(self, x):
        self.seen.append(torch.get_num_threads())
        return x * 2


@pytest.mark.parametrize('fails', [False, True])
def test_pytorch_has_the_threads_of_the_table(fails, monkeypatch):
    """A training has others, and has them again afterwards, also where the timing fails."""

    def fail(self, x):
        raise RuntimeError('no memory')

    seen = []
    monkeypatch.setattr(Counting, 'seen', seen)
    if fails:
        monkeypatch.setattr(Counting, 'forward', fail)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        arguments = (Counting(), Counting(), (1, 3, 4, 4), 'torch')
        if fails:
            with pytest.raises(RuntimeError, match='no memory'):
                time_share(*arguments, pairs=1)
        else:
            assert time_share(*arguments, pairs=1) > 0
            assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def convolutions(number: int) -> nn.Module:
    return nn.Sequential(
        *[nn.Conv2d(3 if n == 0 else 32, 32, 3, padding=1) for n in range(number)]
    )


@pytest.mark.parametrize('backend', ['torch', 'onnxruntime'])
def test_a_network_of_a_tenth_is_faster(backend):
    for package in ('onnx', 'onnxruntime') if backend == 'onnxruntime' else ():
        pytest.importorskip(package)
    share = time_share(convolutions(20), convolutions(2), (1, 3, 32, 32), backend, pairs=1)
    assert 0 < share < 0.5


def test_a_network_of_seconds_is_loaded_once(monkeypatch):
    """Five times of a minute each are no timing that a training waits for."""
    loads = []

    def open_network(model, shape, backend, device, threads):
        return lambda: loads.append(model) or (lambda: None)

    monkeypatch.setattr(network_time, 'open_network', open_network)
    monkeypatch.setattr(measure_latency, 'ratio_of', lambda runs, *settings: dict(slim=0.5))
    for seconds, pairs in ((0.03, 5), (1.5, 5), (3.0, 2), (9.5, 1)):
        monkeypatch.setattr(network_time, '_seconds', lambda run, seconds=seconds: seconds)
        loads.clear()
        assert time_share('dense', 'slim', (1, 3, 8, 8), 'torch') == 0.5
        assert loads == ['dense', 'slim'] * pairs


class TestMadeHere:
    @pytest.fixture
    def content(self):
        opened = measure_latency.open_backend('torch', 'cpu', 1)
        names = dict(device_name=opened.device_name, backend_version=opened.version)
        opened.close()
        return table_json(bilinear_layer(1, 0, 0, 0)) | dict(backend='torch') | names

    def test_this_machine(self, content):
        table = LatencyTable(content)
        assert network_time.is_made_here(table)

    @pytest.mark.parametrize('key', ['device_name', 'backend_version'])
    def test_another_one(self, content, key):
        table = LatencyTable(content | {key: 'another'})
        assert not network_time.is_made_here(table)
        assert network_time.time_share_on(table) is None

    def test_a_backend_that_is_not_installed(self, content, monkeypatch):
        monkeypatch.setattr(measure_latency, 'open_backend', partial(refuse, content))
        assert not network_time.is_made_here(LatencyTable(content))


def refuse(*_):
    raise measure_latency.RefusedError('not installed')
