# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json

import numpy as np
import pytest
import torch

from _utils.latency_formula import X, net, ratio
from _utils.nets import runs
from mmdet_adasap.export import cut_to_first, describe_layers
from mmdet_adasap.export.layers_file import WIDTHS
from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.latency.measure_latency import NETWORKS, TABLE_FORMAT, check_layers
from mmdet_adasap.pruning import LatencyCost, find_channels, timed_networks


@pytest.fixture(scope='module')
def channels():
    return find_channels(net(), runs(X))


@pytest.fixture(scope='module')
def layers(channels):
    return json.loads(json.dumps(describe_layers(channels, X.shape, 'net.py')))


def measured(layers: dict, step: int) -> LatencyTable:
    """The table that a device makes of it, with the times of a formula."""
    entries = []
    for layer in layers['layers']:
        inputs = np.array(layer['inputs'])
        grouped = layer['key']['group_width'] is not None
        times = ratio(inputs, 0) if grouped else ratio(inputs[:, None], np.array(layer['outputs']))
        entry = {k: v for k, v in layer.items() if k != 'calls'}
        entries.append({**entry, 'ratios': times.tolist()})
    head = dict.fromkeys(('backend', 'backend_version', 'device', 'device_name', 'clock'), 'x')
    return LatencyTable(
        {
            **head,
            'format': TABLE_FORMAT,
            'threads': 1,
            'dtype': layers['dtype'],
            'rounds': 1,
            'reference_ns': 1e6,
            'step': step,
            'spread': 0.0,
            'layers': entries,
            'networks': {
                layers['network']: {'input': layers['input'], 'dense': 90, 'half': 40, 'early': 70}
            },
        }
    )


def test_a_device_takes_it(layers):
    check_layers(layers)
    assert layers['input'] == [1, 3, 8, 8]
    assert layers['config'] == 'net.py'
    for layer in layers['layers']:
        for grid in (layer['inputs'], layer.get('outputs', [1])):
            assert grid == sorted(set(grid))
            assert len(grid) <= WIDTHS + 1  # with those that no choice changes


@pytest.mark.parametrize('step', [1, 16])
def test_the_table_of_it_answers_for_every_choice(channels, layers, step):
    cost = LatencyCost(channels, measured(layers, step))
    assert cost.has_rest
    rng = np.random.default_rng(0)
    sizes = channels.group_sizes
    times = [cost(rng.integers(1, sizes + 1)) for _ in range(20)]
    assert 0 < min(times) <= max(times) <= cost(sizes)


def test_calls_of_one_kind_are_counted(channels, layers):
    assert sum(layer['calls'] for layer in layers['layers']) == len(channels.calls)
    assert len({json.dumps(layer['key']) for layer in layers['layers']}) == len(layers['layers'])


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_have_their_channels(channels, name):
    model, counts = net(), timed_networks(channels)[name]
    cut = find_channels(cut_to_first(model, channels, counts), runs(X))
    assert cut.group_sizes.tolist() == counts.tolist()
    assert torch.isfinite(model(X)).all()
