# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pytest
import torch
from torch import nn

from _utils.latency_formula import X, net
from _utils.nets import runs
from mmdet_adasap.pruning import find_channels, network_digest, timed_networks
from mmdet_adasap.pruning.layer_calls import activations


@pytest.fixture(scope='module')
def channels():
    return find_channels(net(), runs(X))


def test_half_of_every_group_in_steps_of_16(channels):
    networks = timed_networks(channels)
    assert networks['dense'].tolist() == channels.group_sizes.tolist()
    half = dict(zip(networks['dense'].tolist(), networks['half'].tolist(), strict=True))
    assert half == {48: 32, 64: 32, 16: 16, 40: 32}


def test_early_loses_values_and_few_parameters():
    """Half of the wide map, and nothing of the small ones, which have most of the parameters."""
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.MaxPool2d(8),
        nn.Conv2d(32, 256, 3, padding=1),
        nn.Conv2d(256, 512, 3, padding=1),
        nn.Conv2d(512, 4, 1),
    )
    channels = find_channels(model, runs(torch.rand(1, 3, 64, 64)))
    networks = timed_networks(channels)
    by_size = dict(zip(channels.group_sizes.tolist(), networks['early'].tolist(), strict=True))
    assert by_size == {32: 16, 256: 256, 512: 512}
    values = activations(channels.calls, len(by_size))
    left = {name: values(counts) / values(networks['dense']) for name, counts in networks.items()}
    assert left['half'] < left['early'] < 0.75
    assert channels.params(networks['early']) > 0.96 * channels.params(networks['dense'])


def test_other_widths_are_another_network(channels):
    other = net()
    other.fc, other.head = nn.Linear(80 * 4, 56), nn.Linear(56, 5)
    assert network_digest(channels) == network_digest(find_channels(net(), runs(X)))
    assert network_digest(channels) != network_digest(find_channels(other, runs(X)))
