# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The device that a command chooses, on machines with other GPUs than this one."""

import json

import pytest
import torch

from mmdet_adasap.cli.machine import choose_device


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many GPUs PyTorch sees, and what torchrun says."""

    def see(count: int, rank: int = 0, processes: int = 1) -> None:
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: count > 0)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda number: f'Test {number}')
        monkeypatch.setenv('LOCAL_RANK', str(rank))
        monkeypatch.setenv('LOCAL_WORLD_SIZE', str(processes))

    return see


@pytest.mark.parametrize(
    ('machine', 'asked', 'device', 'line'),
    [
        ((0,), None, 'cpu', 'device cpu: PyTorch sees no GPU here'),
        ((1,), None, 'cuda:0', 'device cuda:0, Test 0'),
        ((2, 1, 2), None, 'cuda:1', 'device cuda:1, Test 1'),
        ((1, 1, 2), None, 'cpu', 'device cpu: 2 processes, and 1 GPUs'),
        ((1,), 'cpu', 'cpu', 'device cpu'),
        ((2, 1, 2), 'cuda', 'cuda:1', 'device cuda:1, Test 1'),
        ((2, 1, 2), 'cuda:0', 'cuda:0', 'device cuda:0, Test 0'),
    ],
)
def test_choice(gpus, tmp_path, machine, asked, device, line):
    gpus(*machine)
    assert choose_device(asked, tmp_path) == (device, line)


@pytest.mark.parametrize(
    ('machine', 'asked', 'message'),
    [
        ((0,), 'cuda', '--device cuda: PyTorch sees no GPU here; give cpu'),
        ((1,), 'cuda:1', '--device cuda:1: PyTorch sees only cuda:0 here'),
        ((1,), 'gpu', '--device gpu: there is none of that name'),
        ((1,), 'cuda:x', '--device cuda:x: there is none of that name'),
        ((1,), '', '--device : there is none of that name'),
    ],
)
def test_refused(gpus, tmp_path, machine, asked, message):
    gpus(*machine)
    with pytest.raises(ValueError, match=message):
        choose_device(asked, tmp_path)


@pytest.mark.parametrize(
    ('text', 'device'),
    [
        (json.dumps({'protocol': {'device': 'cpu'}}), 'cpu'),
        (json.dumps({'protocol': {'device': 'Test 0'}}), 'cuda:0'),
        ('torn', 'cuda:0'),
        ('[]', 'cuda:0'),
    ],
)
def test_results_of_the_cpu_go_on_there(gpus, tmp_path, text, device):
    """The command that began them, on a machine whose GPU was not used before, goes on."""
    gpus(1)
    (tmp_path / 'results.json').write_text(text)
    found, line = choose_device(None, tmp_path)
    assert found == device
    if device == 'cpu':
        assert line.startswith(f'device cpu, as of the results in {tmp_path}')
