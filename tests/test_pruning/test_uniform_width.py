# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The criterion that takes the same share of each group."""

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_adasap.apis import prune_model
from mmdet_adasap.hooks.settings import part_to_dict
from mmdet_adasap.pruning import (
    MagnitudeImportance,
    Pruner,
    TaylorImportance,
    UniformWidth,
    named_tensors,
)
from mmdet_adasap.registry import IMPORTANCES, build

WIDTHS = (64, 32, 128)


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    first, second, third = WIDTHS
    net = nn.Sequential(
        nn.Conv2d(3, first, 3),
        nn.BatchNorm2d(first),
        nn.Conv2d(first, second, 1),
        nn.Conv2d(second, third, 1),
        nn.Conv2d(third, 4, 1),
    )
    nn.init.uniform_(net[1].weight)
    # Layers of other scales, which a criterion that compares them would cut otherwise.
    with torch.no_grad():
        net[2].weight *= 100
    return net


def forward(model: nn.Module) -> torch.Tensor:
    return model(torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8))


def observed(importance, fraction: float = 0.5, round_to: int = 1) -> Pruner:
    net = make_net()
    pruner = Pruner(net, forward, dict(params=fraction), importance, round_to)
    forward(net).square().sum().backward()
    pruner.observe()
    return pruner


@pytest.mark.parametrize('inner', [MagnitudeImportance, TaylorImportance])
def test_the_same_share_of_each_group_the_least_important_first(inner):
    pruner = observed(UniformWidth(inner()))
    plain = inner()
    plain.observe(pruner.channels.groups, dict(pruner.model.named_parameters()))
    kept = pruner.select(0.5)
    shares = [k.mean() for k in kept]
    assert max(shares) - min(shares) <= 1 / min(WIDTHS)
    for group, k in zip(pruner.channels.groups, kept, strict=True):
        every = torch.ones(group.size, dtype=torch.bool)
        scores = plain.scores(group, named_tensors(pruner.model), every).detach().numpy()
        assert scores[k].min() >= scores[~k].max()


def test_widths_stay_uniform_in_steps_and_over_several_events():
    pruner = observed(UniformWidth(MagnitudeImportance()), 0.3, round_to=8)
    for fraction in (0.7, 0.5, 0.3):
        pruner.prune_to(fraction)
        for width, kept in zip(WIDTHS, pruner.masks.counts, strict=True):
            share = pruner.masks.counts[2] / WIDTHS[2]
            assert abs(kept - share * width) <= 8
    assert pruner.remaining() <= 0.3


def test_what_the_other_does_not_know_stays():
    class Blind(MagnitudeImportance):
        def scores(self, group, tensors, kept):
            found = super().scores(group, tensors, kept)
            found[0], found[1] = torch.nan, torch.inf
            return found

    pruner = observed(UniformWidth(Blind()))
    assert all(k[:2].all() for k in pruner.select(0.5))


def test_state_is_that_of_the_other_and_makes_the_same_choice():
    pruner = observed(UniformWidth())
    state = pruner.importance.state_dict()
    assert state.keys() == TaylorImportance().state_dict().keys()
    resumed = Pruner(make_net(), forward, dict(params=0.5), UniformWidth())
    resumed.importance.load_state_dict(state, resumed.channels.groups)
    for one, other in zip(pruner.select(0.5), resumed.select(0.5), strict=True):
        assert np.array_equal(one, other)
    assert part_to_dict(pruner.importance) == part_to_dict(UniformWidth())
    pruner.importance.start_interval()
    assert pruner.importance.state_dict()['count'] == 0


def test_a_config_names_the_other():
    taylor = build(IMPORTANCES, dict(type='UniformWidth'), 'importance')
    assert taylor.needs_gradients
    assert part_to_dict(taylor) == {
        'type': 'UniformWidth',
        'normalize': False,
        'within': 'TaylorImportance(normalize=False)',
    }
    inner = dict(type='MagnitudeImportance', p=1)
    magnitude = build(IMPORTANCES, dict(type='UniformWidth', within=inner), 'importance')
    assert not magnitude.needs_gradients
    assert magnitude.within == 'MagnitudeImportance(normalize=True, p=1)'


@pytest.mark.parametrize(
    ('within', 'message'),
    [
        ('Taylor', r"^importance\.within\.type='Taylor' is unknown"),
        (dict(type='TaylorImportance', p=2), r"within: TaylorImportance: unexpected 'p'"),
        (None, r'^importance\.within=None must be a criterion'),
        ('UniformWidth', r'^importance\.within=.*must be a criterion'),
    ],
)
def test_mistakes(within, message):
    with pytest.raises(ValueError, match=message):
        build(IMPORTANCES, dict(type='UniformWidth', within=within), 'importance')


def test_prune_model_takes_it():
    importance = dict(type='UniformWidth', within='MagnitudeImportance')
    image = torch.randn(1, 3, 8, 8)
    net = make_net()
    structure = prune_model(net, inputs=image, target=dict(params=0.4), importance=importance)
    assert structure['reached']['params'] <= 0.4
    with pytest.raises(ValueError, match='needs training steps'):
        prune_model(make_net(), inputs=image, importance='UniformWidth')
    with pytest.raises(ValueError, match=r"use one of \['magnitude'\]"):
        prune_model(make_net(), inputs=image, importance='nothing')
