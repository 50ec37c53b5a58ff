# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A target that cannot be reached: what holds the model up, and what to do about that."""

import re

import pytest
import torch
from torch import nn
from torch.nn import Conv2d

from _utils.nets import Net, runs
from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.pruning import MagnitudeImportance, Pruner

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def layers(between=lambda net, x: x, widths=(64, 64), outputs: int = 2) -> Net:
    first, second = widths
    return Net(
        lambda n, x: n.head(n.second(between(n, n.first(x))).mean((2, 3))),
        first=Conv2d(3, first, 3),
        second=Conv2d(first, second, 3),
        head=nn.Linear(second, outputs),
    )


def message(model: nn.Module, target: float, round_to: int = 1) -> str:
    with pytest.raises(UnreachableTargetError) as caught:
        Pruner(model, runs(X), dict(params=target), MagnitudeImportance(), round_to)
    text = str(caught.value)
    assert text.startswith(f'target=dict(params={target:g}) cannot be reached: ')
    assert '\n' not in text
    offered = re.search(r'target of ([\d.]+) or more', text)
    if offered:
        fraction = float(offered.group(1))
        pruner = Pruner(model, runs(X), dict(params=fraction), MagnitudeImportance(), round_to)
        pruner.prune_to(fraction)
        assert fraction - 0.01 < pruner.remaining() <= fraction
    return text


def test_untrained_stages():
    model = layers()
    model.first.requires_grad_(False)
    model.second.requires_grad_(False)
    text = message(model, 0.3)
    assert 'of the parameters are in second and 1 more, which stay: weight that is not' in text
    assert 'train them (requires_grad=True; frozen_stages=-1 in a config)' in text
    assert 'round_to to' not in text


def test_protected_outputs():
    text = message(layers(outputs=5000), 0.01)
    assert re.search(
        r'0\.\d+ of the parameters are in head, which stay: output of the model', text
    )
    assert 'round_to to' not in text
    assert 'train' not in text


def test_everything_in_one_head():
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 1000))
    text = message(model, 0.5)
    assert (
        'at least 1.0000 remain; 0.991 of the parameters are in 1, which stay: output of' in text
    )
    assert 'nothing of this model can go' in text


def test_round_to_too_large():
    text = message(layers(), 0.05, round_to=64)
    assert re.search(r'with round_to=64 at least 1\.0000 remain; lower round_to to (\d+) ', text)
    smaller = int(re.search(r'lower round_to to (\d+)', text).group(1))
    Pruner(layers(), runs(X), dict(params=0.05), MagnitudeImportance(), smaller)
    with pytest.raises(UnreachableTargetError):
        Pruner(layers(), runs(X), dict(params=0.05), MagnitudeImportance(), 2 * smaller)


def test_an_operation_that_is_not_understood():
    model = Net(
        lambda n, x: n.head(n.second(n.first(x)).cumprod(1).mean((2, 3))),
        first=Conv2d(3, 2, 1),
        second=Conv2d(2, 256, 3),
        head=nn.Linear(256, 2),
    )
    text = message(model, 0.2)
    assert 'are in second, which stay: aten::cumprod, which has no rule, in the model' in text
    assert 'write a rule for that operation (README: New operations)' in text


def test_an_operation_that_needs_all_channels():
    text = message(layers(lambda n, x: x.softmax(1), widths=(256, 2)), 0.1)
    assert 'replace that operation, which needs these channels as they are, or set a' in text


def test_a_layer_left_whole_after_a_trial():
    text = message(layers(lambda n, x: x / x.shape[1], widths=(256, 2)), 0.1)
    assert 'are in first' in text
    assert 'mend the code that fails there when they are narrower' in text


def test_layers_that_no_run_meets():
    model = layers()
    model.spare = nn.Linear(500, 500)
    with pytest.raises(
        UnreachableTargetError, match=r'are in spare, which stay: they took no part'
    ):
        Pruner(model, runs(X), dict(params=0.3), MagnitudeImportance())


def test_below_what_one_channel_a_layer_leaves():
    text = message(layers(), 0.0001)
    assert re.search(
        r'round_to=1 and max_pruning_ratio=0.9 at least 0\.0\d\d\d remain; (set a target of '
        r'0\.0\d\d or more) \(',
        text,
    )


def test_what_max_pruning_ratio_leaves():
    with pytest.raises(UnreachableTargetError, match=r'; raise max_pruning_ratio towards 1, or'):
        Pruner(layers(), runs(X), dict(params=0.01), MagnitudeImportance())
    Pruner(layers(), runs(X), dict(params=0.01), MagnitudeImportance(), max_pruning_ratio=1)
