# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Trial cuts find widths that code ties by value, before anything is pruned."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d

from _utils.nets import Net, assert_cuts, random_choice, randomise, runs, trace
from mmdet_adasap.pruning import MagnitudeImportance, Pruner, analysis, find_channels
from mmdet_adasap.pruning.trial_cuts import trial_cuts

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def like_x(net: nn.Module, x: Tensor) -> Tensor:
    images, channels, height, width = x.shape
    return net.q(x).reshape(images, channels, height, width)


def twice_x(net: nn.Module, x: Tensor) -> Tensor:
    return net.wide(x).reshape(len(x), 2, x.shape[1], *x.shape[2:]).sum(1)


def both_halves(net: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([net.left(x), net.right(x)], 1).reshape(x.shape)


def square_root(net: nn.Module, x: Tensor) -> Tensor:
    return net.q(x) / net.q(x).shape[1] ** 0.5


@pytest.mark.parametrize('size', [2, 8, 64])
@pytest.mark.parametrize(
    ('between', 'wrong'),
    [
        (like_x, {'q', 'first'}),
        (twice_x, {'wide', 'first'}),
        (both_halves, {'left', 'right', 'first'}),
        (square_root, {'q'}),
    ],
)
def test_widths_tied_by_value_are_left_whole(between, wrong, size):
    """What else there is can be cut, to any width."""
    torch.manual_seed(0)
    half = size // 2
    model = Net(
        lambda n, x: n.head(n.after(between(n, n.first(n.stem(x))))),
        stem=Conv2d(3, size, 1),
        first=Conv2d(size, size, 1),
        q=Conv2d(size, size, 1),
        wide=Conv2d(size, 2 * size, 1),
        left=Conv2d(size, half, 1),
        right=Conv2d(size, half, 1),
        after=Conv2d(size, size, 1),
        head=Conv2d(size, 2, 1),
    )
    channels = find_channels(randomise(model), runs(X))
    assert set(channels.excluded) <= wrong
    assert 'does not run' in (reason := next(iter(channels.excluded.values()))) or 'diff' in reason
    assert {'stem', 'after'} <= {group.name for group in channels.groups}
    assert_cuts(model, X, channels)
    params = sum(p.numel() for p in model.parameters())
    assert channels.params(channels.group_sizes) == params
    counts = np.array([1] * len(channels.groups))
    target = dict(params=channels.params(counts) / params)
    pruner = Pruner(model, runs(X), target, MagnitudeImportance(), max_pruning_ratio=1)
    pruner.prune_to(pruner.targets)
    pruner.cut()
    assert sum(p.numel() for p in model.parameters()) == channels.params(counts)


class Block(nn.Module):
    def __init__(self, by_value: bool) -> None:
        super().__init__()
        self.by_value = by_value
        self.q, self.k = Conv2d(8, 8, 1), Conv2d(8, 8, 1)
        self.out = Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        k = self.k(x).relu()
        return self.out(self.q(x).reshape(k.shape) if self.by_value else k + self.q(x))


def test_only_the_blocks_that_fail_are_left_whole():
    model = Net(
        lambda n, x: n.head(n.blocks(n.stem(x))),
        stem=Conv2d(3, 8, 1),
        blocks=nn.Sequential(*(Block(by_value) for by_value in (False, True, True, False))),
        head=Conv2d(8, 2, 1),
    )
    lines = []
    channels = find_channels(randomise(model), runs(X), lines.append)
    assert set(channels.excluded) == {f'blocks.{i}.{n}' for i in (1, 2) for n in ('q', 'k')}
    assert {group.name for group in channels.groups} == {
        'stem',
        *(f'blocks.{i}.out' for i in range(4)),
        *(f'blocks.{i}.k' for i in (0, 3)),  # with q, which is added
    }
    assert len(lines) == 2
    assert channels.excluded['blocks.2.q'].startswith('as blocks.1.q: the cut model does not run;')
    assert_cuts(model, X, channels)


def test_a_group_left_whole_counts_as_fixed():
    """Costs and attributes are those of the model with the others cut."""
    model = randomise(
        Net(
            lambda n, x: n.head(torch.cat([n.a(x), n.b(x)], 1)),
            a=Conv2d(3, 8, 1),
            b=Conv2d(3, 6, 1),
            head=Conv2d(14, 2, 1),
        )
    )
    channels = trace(model, X)
    whole = channels.leave_whole({0: 'for a test'})
    assert [(g.index, g.name, g.size) for g in whole.groups] == [(0, 'b', 6)]
    for cost, left in ((channels.params, whole.params), (channels.flops, whole.flops)):
        assert [cost(np.array([8, n])) for n in (1, 4, 6)] == [
            left(np.array([n])) for n in (1, 4, 6)
        ]
    assert whole.excluded == {'a': 'for a test'}
    assert {axis.name for axis in whole.frozen['for a test']} == {
        'a.weight',
        'a.bias',
        'head.weight',
    }
    assert_cuts(model, X, whole)


@pytest.mark.parametrize(
    ('sizes', 'expected'),
    [([64] * 20, 1), ([8] * 6, 1), ([64, 128, 256, 32], 1), ([2] * 6, 4), ([3] * 3, 2), ([5], 1)],
)
def test_shares_differ(sizes, expected):
    """Equal groups keep different numbers, in one cut if their size allows it."""
    layers = {f'l{i}': nn.Linear(3, size) for i, size in enumerate(sizes)}
    model = Net(
        lambda n, x: n.head(torch.cat([getattr(n, name)(x) for name in layers], 1)),
        **layers,
        head=nn.Linear(sum(sizes), 2),
    )
    groups = trace(model, torch.randn(2, 3)).groups
    assert [group.size for group in groups] == sizes
    cuts = trial_cuts(model, groups)
    assert len(cuts) == expected
    assert all(kept.any() and not kept.all() for kept in cuts[0])
    shares = [
        tuple(Fraction(int(cut[g].sum()), size) for cut in cuts) for g, size in enumerate(sizes)
    ]
    assert len(set(shares)) == len(sizes)
    again = trial_cuts(model, groups)
    assert all(
        np.array_equal(a, b)
        for x, y in zip(cuts, again, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_nothing_to_cut_needs_one_trial(monkeypatch):
    calls = []
    monkeypatch.setattr(analysis, 'verify_cut', lambda *args: calls.append(args))
    channels = find_channels(Conv2d(3, 8, 1), runs(X))
    assert channels.groups == []
    assert len(calls) == 1


TOKENS = torch.randn(2, 36, 3, generator=torch.Generator().manual_seed(0))


def scores(net: nn.Module, x: Tensor) -> Tensor:
    """Every score is there twice, but for its rounding; both sums depend on how many they add."""
    y = net.first(x)
    return torch.cat([y.sum(-1), (3 * y).sum(-1) / 3], 1)


def best(net: nn.Module, x: Tensor) -> list[Tensor]:
    return list(scores(net, x).topk(20))


def order_and_threshold(net: nn.Module, x: Tensor) -> list[Tensor]:
    found = scores(net, x)
    return [found.argsort(descending=True), torch.where(found > found.median())[1]]


def second_stage(net: nn.Module, x: Tensor) -> Tensor:
    """What is selected goes on to another layer, as proposals do."""
    return net.out(net.fc(best(net, x)[1][..., None] / 36).relu())


@pytest.mark.parametrize('run', [best, order_and_threshold, second_stage])
def test_ties_are_broken_alike(run):
    torch.manual_seed(0)
    layers = dict(first=nn.Linear(3, 64))
    if run is second_stage:
        layers |= dict(fc=nn.Linear(1, 16), out=nn.Linear(16, 2))
    model = Net(run, **layers)
    channels = find_channels(model, runs(TOKENS))
    assert not channels.excluded
    assert [g.name for g in channels.groups] == [n for n in ('first', 'fc') if n in layers]
    for seed in range(5):
        kept = random_choice(channels, 0.4, seed)
        assert analysis._Trial(model, channels, runs(TOKENS), kept).error() is None


def test_images_in_a_list_are_compared_in_double():
    """float32 rounds to steps of 1/128 near 1e5; the cut itself is right."""
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.head(n.a(torch.stack(x))) + 1e5 - 1e5,
        a=Conv2d(3, 64, 3),
        head=Conv2d(64, 32, 3),
    )
    assert not find_channels(model, runs(list(X))).excluded


def test_a_wrong_cut_is_seen_behind_a_selection():
    """The layer divides by its number of inputs: scores change, and so does what is selected."""
    model = Net(
        lambda n, x: n.head(n.a(x) / n.a(x).shape[1]).flatten(1).topk(3).indices,
        a=Conv2d(3, 32, 1),
        head=Conv2d(32, 2, 1),
    )
    channels = find_channels(model, runs(X))
    assert channels.groups == []
    assert list(channels.excluded) == ['a']


def test_a_width_that_divides_the_entries_is_seen():
    """``reshape(n, -1)`` runs with a wrong n if that divides what is left."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.q(x)
        n = net.a.weight.shape[0]
        return net.k(y.flatten(1).reshape(len(y), n, -1).reshape(y.shape)) + net.b(net.a(x))

    torch.manual_seed(0)
    model = Net(run, a=Conv2d(3, 8, 1), q=Conv2d(3, 8, 1), k=Conv2d(8, 2, 1), b=Conv2d(8, 2, 1))
    channels = find_channels(randomise(model), runs(torch.randn(1, 3, 6, 9)))
    assert channels.excluded
    assert_cuts(model, torch.randn(1, 3, 6, 9), channels)
