# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math

import numpy as np
import torch
from torch import nn

from mmdet_adasap.pruning import (
    LayerKey,
    attribute_counts,
    copy_model,
    cut,
    indices_from_masks,
    repeated,
    trace_channels,
    widths,
)
from mmdet_adasap.pruning.layer_calls import activations

X = torch.rand(2, 3, 16, 16)


class Mixed(nn.Module):
    """All kinds of groups, transposed, linear, and a head that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.whole = nn.Conv2d(16, 32, 3, padding=2, dilation=2, groups=8)
        self.wide = nn.Conv2d(32, 24, 1, groups=2)
        self.up = nn.ConvTranspose2d(24, 12, 2, stride=2)
        self.head = nn.Conv2d(12, 5, 3, padding=1)
        self.fc = nn.Linear(12, 20)
        self.out = nn.Linear(20, 4)

    def forward(self, x):
        x = self.wide(self.whole(self.depthwise(self.stem(x).relu())).relu()).relu()
        x = self.up(x).relu()
        pooled = nn.functional.avg_pool2d(x, 2)
        return self.head(x), self.head(pooled), self.out(self.fc(x.mean((2, 3))).relu())


def calls_of(model, x=X):
    channels = trace_channels(model, lambda m: m(x))
    counts = channels.group_sizes
    found = [
        (call.name, call.key, widths(call.inputs, counts), widths(call.outputs, counts))
        for call in channels.calls
    ]
    return channels, found


def test_as_they_are_called():
    _, found = calls_of(Mixed())
    names = [name for name, *_ in found]
    assert names == ['stem', 'depthwise', 'whole', 'wide', 'up', 'head', 'head', 'fc', 'out']
    keys = {name: key for name, key, *_ in found}
    size = dict(batch=2, dtype='float32')
    assert keys['stem'] == LayerKey(
        'conv', (3, 3), (2, 2), (1, 1), (1, 1), 1, None, map=(16, 16), **size
    )
    assert keys['depthwise'].group_width == (1, 1)
    assert keys['whole'].group_width == (2, 4)
    assert keys['whole'].dilation == (2, 2)
    assert (keys['wide'].groups, keys['wide'].group_width) == (2, None)
    assert keys['up'].op == 'conv_transpose'
    assert [key.map for name, key, *_ in found if name == 'head'] == [(16, 16), (8, 8)]
    assert keys['fc'] == LayerKey('linear', (), (), (), (), 1, None, map=(), **size)
    assert [each[2:] for each in found] == [
        (3, 16), (16, 16), (16, 32), (32, 24), (24, 12), (12, 5), (12, 5), (12, 20), (20, 4),
    ]  # fmt: skip
    for key in keys.values():
        assert LayerKey.from_dict(key.to_dict()) == key


def test_widths_are_those_of_a_slim_model():
    model = Mixed()
    channels, _ = calls_of(model)
    kept = [np.arange(group.size) < math.ceil(0.6 * group.size) for group in channels.groups]
    assert len(kept) == 4
    counts = np.array([k.sum() for k in kept])
    slim = copy_model(model)
    keep = indices_from_masks(slim, channels.groups, kept)
    cut(slim, keep, attribute_counts(slim, channels, keep, kept))
    _, found = calls_of(slim)
    predicted = [
        (call.name, call.key, widths(call.inputs, counts), widths(call.outputs, counts))
        for call in channels.calls
    ]
    assert predicted == found


def test_activations_are_the_values_that_layers_put_out():
    model, seen = Mixed(), []
    layers = [
        m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    for layer in layers:
        layer.register_forward_hook(lambda module, args, out: seen.append(out.numel()))
    model(X)
    values = sum(seen)
    channels, _ = calls_of(model)
    assert activations(channels.calls, len(channels.groups))(channels.group_sizes) == values


def test_a_second_stage_has_the_rows_that_it_will_have():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with repeated(model, 7, 1000):
        _, found = calls_of(model, torch.rand(7, 6))
    assert [key.batch for _, key, *_ in found] == [1000, 1000]


def test_a_group_left_whole_is_a_fixed_width():
    channels, dense = calls_of(Mixed())
    whole = channels.leave_whole({1: 'for a test'})
    counts = np.delete(channels.group_sizes, 1)
    assert [
        (call.name, call.key, widths(call.inputs, counts), widths(call.outputs, counts))
        for call in whole.calls
    ] == dense
