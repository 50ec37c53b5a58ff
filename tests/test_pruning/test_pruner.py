# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import math
import random
import re

import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from torch import nn
from torch.nn import functional as F

from _utils.nets import Net, chain, randomise, runs
from mmdet_adasap.errors import EquivalenceError, UnreachableTargetError
from mmdet_adasap.pruning import (
    Importance,
    MagnitudeImportance,
    Pruner,
    TaylorImportance,
    check_target,
)

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def wide_chain() -> Net:
    """Wide enough for steps of eight channels."""

    def run(net, x):
        x = F.relu(net.bn1(net.conv1(x)))
        x = F.relu(x + net.bn2(net.conv2(x)))
        x = F.relu(net.dw(net.conv3(x)))
        x = F.adaptive_avg_pool2d(torch.cat([x, net.side(x)], 1), 2)
        return net.head(F.relu(net.fc(x.flatten(1))))

    return randomise(
        Net(
            run,
            conv1=nn.Conv2d(3, 48, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(48),
            conv2=nn.Conv2d(48, 48, 3, padding=1),
            bn2=nn.BatchNorm2d(48),
            conv3=nn.Conv2d(48, 64, 3),
            dw=nn.Conv2d(64, 64, 3, padding=1, groups=64),
            side=nn.Conv2d(64, 20, 1),
            fc=nn.Linear(84 * 4, 40),
            head=nn.Linear(40, 5),
        )
    )


def real(model: nn.Module, resource: str) -> int:
    if resource == 'params':
        return sum(p.numel() for p in model.parameters())
    model = copy.deepcopy(model).eval()
    info = get_model_complexity_info(model, inputs=(X,), show_table=False, show_arch=False)
    return info['flops']


@pytest.mark.parametrize('round_to', [1, 8])
@pytest.mark.parametrize('fraction', [0.3, 0.5, 0.7])
@pytest.mark.parametrize('resource', ['params', 'flops'])
def test_the_target_is_met_and_never_exceeded(resource, fraction, round_to):
    model = wide_chain()
    dense = real(model, resource)
    pruner = Pruner(model, runs(X), {resource: fraction}, MagnitudeImportance(), round_to)
    for step in (1, 2, 3):
        limit = fraction ** (step / 3)
        pruner.prune_to(limit)
        assert pruner.remaining() <= limit
    sizes, counts = pruner.channels.group_sizes, pruner.masks.counts
    reached = pruner.remaining()
    structure = pruner.cut()
    assert real(model, resource) / dense == reached == structure['reached'][resource] <= fraction
    assert all(c % round_to == 0 or c == n for c, n in zip(counts, sizes, strict=True))
    units = []
    for g, size in enumerate(sizes):
        more = counts.copy()
        more[g] = min(size, counts[g] + round_to)
        units.append(pruner.limits.costs[resource](more) / dense - reached)
    assert fraction - reached <= max(0.02 * fraction, *units)


def test_plain_pytorch_with_optimizer_and_average():
    torch.manual_seed(0)
    model = chain()
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    pruner = Pruner(model, runs(X), dict(params=0.4), TaylorImportance())
    data = torch.randn(4, 3, 8, 8)

    def step():
        optimizer.zero_grad()
        model.train()(data).square().mean().backward()
        pruner.observe()
        optimizer.step()
        average.update_parameters(model)

    for fraction in (0.7, 0.4):
        for _ in range(3):
            step()
        pruner.prune_to(fraction, [optimizer], [average.module])
    step()
    masked = model.eval()(X), average.eval()(X)
    pruner.cut([optimizer], [average.module])
    slim = model.eval()(X), average.eval()(X)
    for a, b in zip(slim, masked, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(data).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
    assert sum(p.numel() for p in model.parameters()) <= 0.4 * pruner.dense['params']
    for p in model.parameters():
        assert optimizer.state[p]['momentum_buffer'].shape == p.shape


def test_an_event_ends_what_the_criterion_observed():
    model = chain()
    pruner = Pruner(model, runs(X), dict(params=0.4), TaylorImportance())
    with pytest.raises(RuntimeError, match='no gradients'):
        pruner.prune_to(0.7)
    model(X).sum().backward()
    pruner.observe()
    pruner.prune_to(0.7)
    with pytest.raises(RuntimeError, match='no gradients'):
        pruner.prune_to(0.4)


def test_masks_are_taken_up_again():
    first = Pruner(chain(), runs(X), dict(params=0.5), MagnitudeImportance())
    first.prune_to(0.6)
    structure = first.structure('prune')
    second = Pruner(copy.deepcopy(first.model), runs(X), dict(params=0.5), MagnitudeImportance())
    second.restore(structure)
    assert second.remaining() == first.remaining()
    for pruner in (first, second):
        pruner.prune_to(0.5)
    assert first.cut() == second.cut()
    assert torch.equal(first.model.eval()(X), second.model.eval()(X))


def test_making_it_leaves_the_model_alone():
    model = chain().train()
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    Pruner(model, runs(X), dict(params=0.5), MagnitudeImportance())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert all(module.training for module in model.modules())


def test_a_target_of_one_cuts_nothing():
    pruner = Pruner(chain(), runs(X), dict(params=1), MagnitudeImportance())
    pruner.prune_to(1.0)
    before = pruner.model.eval()(X)
    structure = pruner.cut()
    assert (structure['keep'], structure['attrs']) == ({}, {})
    assert structure['reached'] == {'params': 1.0, 'flops': 1.0}
    assert torch.equal(pruner.model(X), before)


@pytest.mark.parametrize('resource', ['params', 'flops'])
@pytest.mark.parametrize('round_to', [1, 8, 16])
def test_unreachable_says_what_is_reachable(resource, round_to):
    message = rf'^target=dict\({resource}=0.001\) cannot be reached: .* at least (0\.\d+) remain; '
    with pytest.raises(UnreachableTargetError, match=message) as caught:
        Pruner(wide_chain(), runs(X), {resource: 0.001}, MagnitudeImportance(), round_to)
    offered = float(re.search(r'target of ([\d.]+) or more', str(caught.value)).group(1))
    pruner = Pruner(wide_chain(), runs(X), {resource: offered}, MagnitudeImportance(), round_to)
    pruner.prune_to(offered)
    assert offered - 0.01 < pruner.remaining() <= offered


def test_a_model_that_cannot_be_pruned_at_all():
    with pytest.raises(
        UnreachableTargetError, match=r'at least 1\.0000 remain; .*: output of the model; nothing'
    ):
        Pruner(nn.Conv2d(3, 8, 1), runs(X), dict(params=0.5), MagnitudeImportance())
    pruner = Pruner(nn.Conv2d(3, 8, 1), runs(X), dict(params=1.0), MagnitudeImportance())
    pruner.prune_to(1.0)
    assert pruner.cut()['keep'] == {}


def test_model_that_cannot_be_compared_raises():
    model = Net(
        lambda n, x: n.head(n.a(x)) * random.random(),
        a=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 1),
    )
    with pytest.raises(
        EquivalenceError, match=r'^this model cannot be pruned yet: .* the model itself returns;'
    ):
        Pruner(model, runs(X), dict(params=0.5), MagnitudeImportance())


def test_a_wrong_cut_at_the_end_changes_nothing():
    """The code between the modules begins to depend on the number of channels."""
    flaw = []

    def run(net, x):
        x = net.a(x)
        return net.head(x / x.shape[1] if flaw else x)

    model = Net(run, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    pruner = Pruner(model, runs(X), dict(params=0.5), MagnitudeImportance())
    pruner.prune_to(0.5)
    flaw.append(True)
    before = model(X)
    with pytest.raises(EquivalenceError):
        pruner.cut()
    assert model.a.weight.shape[0] == model.a.out_channels == 8
    assert torch.equal(model(X), before)
    model(X).sum().backward()
    removed = np.flatnonzero(~pruner.masks.kept[0])
    assert not model.a.weight.grad[removed].any()


@pytest.mark.parametrize(
    'target',
    [
        None,
        0.5,
        {},
        dict(latency=0.5),
        dict(params=0.5, latency=0.5),
        dict(params=0),
        dict(params=-0.5),
        dict(params=1.5),
        dict(params=float('nan')),
        dict(params=True),
        dict(params='0.5'),
        dict(flops=None),
    ],
)
def test_bad_targets(target):
    with pytest.raises(ValueError, match=r'^target='):
        check_target(target)
    with pytest.raises(ValueError, match=r'^target='):
        Pruner(chain(), runs(X), target, MagnitudeImportance())


def test_good_targets():
    assert check_target(dict(params=0.4)).fractions == {'params': 0.4}
    assert check_target(dict(flops=1, params=0.5)).resources == ('flops', 'params')


def test_it_cuts_once():
    pruner = Pruner(wide_chain(), runs(X), dict(params=0.5), MagnitudeImportance())
    pruner.prune_to(0.5)
    pruner.cut()
    with pytest.raises(RuntimeError, match='this Pruner has cut its model'):
        pruner.cut()


class Given(Importance):
    """Scores that a test gives."""

    def __init__(self, give) -> None:
        super().__init__()
        self.give = give

    def scores(self, group, tensors, kept):
        return self.give(group.size)


@pytest.mark.parametrize('value', [math.inf, math.nan])
def test_what_is_infinitely_important_stays(value):
    def half(size):
        scores = torch.rand(size)
        scores[::2] = value
        return scores

    pruner = Pruner(wide_chain(), runs(X), dict(params=0.8), Given(half))
    pruner.prune_to(0.8)
    assert pruner.remaining() <= 0.8
    assert all(kept[::2].all() for kept in pruner.masks.kept)
    pruner = Pruner(wide_chain(), runs(X), dict(params=0.1), Given(half))
    with pytest.raises(
        UnreachableTargetError,
        match=r'at least 0.\d+ remain; set target=dict\(params=0.\d{3}\) or more',
    ):
        pruner.prune_to(0.1)


@pytest.mark.parametrize(
    ('give', 'returned'),
    [
        (lambda size: torch.ones(3), r'one of shape \[3\]'),
        (lambda size: [1.0] * size, 'a list'),
    ],
)
def test_scores_of_another_shape_are_refused(give, returned):
    pruner = Pruner(chain(), runs(X), dict(params=0.5), Given(give))
    with pytest.raises(ValueError, match=rf'Given.scores\(\) must return .* returned {returned}'):
        pruner.prune_to(0.5)


@pytest.mark.parametrize('fraction', [0, -1, 2, math.nan, 'x', None, True])
def test_a_fraction_is_one(fraction):
    pruner = Pruner(chain(), runs(X), dict(params=0.5), MagnitudeImportance())
    with pytest.raises(ValueError, match='must be above 0 and at most 1'):
        pruner.prune_to(fraction)


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (lambda: None, 'model is a NoneType'),
        (lambda: nn.Sequential(nn.ReLU()), 'has no parameters'),
        (lambda: nn.Sequential(nn.LazyConv2d(4, 1)), 'lazy layers'),
        (lambda: chain().to('meta'), 'meta device'),
        (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1))), r'torch\.jit'),
        (lambda: Uncopied(), r'Uncopied cannot be copied with copy\.deepcopy'),
    ],
)
def test_models_that_cannot_be_looked_at(model, message):
    with pytest.raises(ValueError, match=message):
        Pruner(model(), runs(X), dict(params=0.5), MagnitudeImportance())


class Uncopied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.held = nn.Conv2d(3, 4, 1), torch.ops.aten

    def __deepcopy__(self, memo):
        raise TypeError('cannot be pickled')

    def forward(self, x):
        return self.a(x)


def test_a_cut_without_a_selection_is_refused():
    pruner = Pruner(chain(), runs(X), dict(params=0.5), MagnitudeImportance())
    with pytest.raises(
        RuntimeError, match=r'^cut\(\) removes what .*; call prune_to\(0\.5\) first$'
    ):
        pruner.cut()
    pruner.prune_to(0.5)
    assert pruner.cut()['reached']['params'] <= 0.5


def test_a_cut_above_the_target_is_told():
    pruner = Pruner(chain(), runs(X), dict(params=0.5), MagnitudeImportance())
    pruner.prune_to(0.8)
    with pytest.warns(
        UserWarning, match=r'more than target=dict\(params=0\.5\); call prune_to\(0\.'
    ):
        pruner.cut()
