# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from _utils.nets import Net, random_choice, randomise, trace
from mmdet_adasap.pruning import (
    ChannelMasks,
    MagnitudeImportance,
    Pruner,
    channel_counts,
    cut,
    indices_from_masks,
)
from mmdet_adasap.pruning.groups import removed_indices

OPTIMIZERS = {
    'sgd': lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
    'nesterov': lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    'adamw': lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
    'amsgrad': lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.05, amsgrad=True),
    **{
        name: lambda p, name=name: getattr(torch.optim, name)(p, lr=1e-3)
        for name in ('Adadelta', 'Adagrad', 'ASGD', 'NAdam', 'RAdam')
    },
}


def net() -> Net:
    """Residual, depthwise, gate, concatenation and flatten, with BN."""

    def run(net, x):
        x = F.silu(net.bn1(net.a(x)))
        x = F.relu(x + net.bn2(net.b(x)))
        x = x * net.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        x = torch.cat([F.relu(net.bn3(net.dw(x))), net.c(x).sigmoid()], 1)
        return net.head(F.adaptive_avg_pool2d(x, 2).flatten(1))

    torch.manual_seed(0)
    return randomise(
        Net(
            run,
            a=nn.Conv2d(3, 8, 3, bias=False),
            bn1=nn.BatchNorm2d(8),
            b=nn.Conv2d(8, 8, 3, padding=1),
            bn2=nn.BatchNorm2d(8),
            gate=nn.Conv2d(8, 8, 1),
            dw=nn.Conv2d(8, 8, 3, padding=1, groups=8),
            bn3=nn.BatchNorm2d(8),
            c=nn.Conv2d(8, 6, 1),
            head=nn.Linear(56, 3),
        )
    ).double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        x = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.double)
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


def removed(tensor: Tensor, axes: dict) -> Tensor:
    return torch.cat([tensor.index_select(a, torch.tensor(i)).flatten() for a, i in axes.items()])


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_masked_channels_stay_exactly_zero(name):
    model = net()
    groups = trace(model, torch.randn(1, 3, 8, 8).double()).groups
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 3)
    average = copy.deepcopy(model)
    masks = ChannelMasks(model, groups)
    kept = random_choice(trace(model, torch.randn(1, 3, 8, 8).double()), 0.5)
    masks.remove(kept, [optimizer], [average])
    train(model, optimizer, 20)
    gone = removed_indices(groups, kept)
    parameters = dict(model.named_parameters())
    averages = dict(average.named_parameters())
    checked = 0
    for tensor_name, axes in gone.items():
        if tensor_name not in parameters:
            continue
        parameter = parameters[tensor_name]
        values = optimizer.state[parameter].values()
        # Some optimisers of older PyTorch count steps in an int.
        state = [v for v in values if isinstance(v, Tensor) and v.shape == parameter.shape]
        assert state
        for tensor in (parameter, parameter.grad, *state, averages[tensor_name]):
            assert not removed(tensor, axes).any()
            assert tensor.any()
        checked += 1
    assert checked >= 14
    assert masks.counts.tolist() == [k.sum() for k in kept]


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_masked_model_trains_like_the_slim_one(name):
    dense = net()
    channels = trace(dense, torch.randn(1, 3, 8, 8).double())
    optimizer = OPTIMIZERS[name](dense.parameters())
    train(dense, optimizer, 3)
    kept = random_choice(channels, 0.5, seed=1)
    masks = ChannelMasks(dense, channels.groups)
    masks.remove(kept, [optimizer])

    slim, slim_optimizer = copy.deepcopy((dense, optimizer))
    keep = indices_from_masks(slim, channels.groups, kept)
    cut(slim, keep, channel_counts(slim, keep), [slim_optimizer])

    train(dense, optimizer, 10, seed=1)
    train(slim, slim_optimizer, 10, seed=1)
    masks.release()
    cut(dense, keep, channel_counts(dense, keep), [optimizer])
    for a, b in zip(dense.parameters(), slim.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
        for key, value in slim_optimizer.state[b].items():
            if value is not None:
                torch.testing.assert_close(optimizer.state[a][key], value, rtol=1e-6, atol=1e-9)
    for a, b in zip(dense.buffers(), slim.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_a_second_event_adds_to_the_first():
    model = net()
    channels = trace(model, torch.randn(1, 3, 8, 8).double())
    masks = ChannelMasks(model, channels.groups)
    first = random_choice(channels, 0.8)
    second = [k & o for k, o in zip(first, random_choice(channels, 0.5, 1), strict=True)]
    optimizer = OPTIMIZERS['sgd'](model.parameters())
    for kept in (first, second):
        masks.remove(kept, [optimizer])
        train(model, optimizer, 2)
    for name, axes in removed_indices(channels.groups, second).items():
        if name in dict(model.named_parameters()):
            assert not removed(model.get_parameter(name), axes).any()


def test_gradients_are_zero_before_the_optimizer():
    """So that norms of gradients (clipping, perturbations) do not count masked channels."""
    model = net()
    channels = trace(model, torch.randn(1, 3, 8, 8).double())
    masks = ChannelMasks(model, channels.groups)
    kept = random_choice(channels, 0.5)
    masks.remove(kept)
    x = torch.randn(2, 3, 8, 8).double()
    for _ in range(2):  # twice: gradients accumulate
        model(x).sum().backward()
    gone = {n: a for n, a in removed_indices(channels.groups, kept).items() if 'running' not in n}
    for name, axes in gone.items():
        assert not removed(model.get_parameter(name).grad, axes).any()
    masks.release()
    model.zero_grad()
    model(x).sum().backward()
    assert any(removed(model.get_parameter(n).grad, a).any() for n, a in gone.items())


def test_layers_that_are_frozen_at_the_event_stay_zero_when_they_train_again():
    """The head reads sigmoids, which are not 0 where their channel is: it gets a gradient."""
    model = net()
    channels = trace(model, torch.randn(1, 3, 8, 8).double())
    optimizer = OPTIMIZERS['sgd'](model.parameters())
    train(model, optimizer, 2)
    model.head.requires_grad_(False)
    masks = ChannelMasks(model, channels.groups)
    kept = random_choice(channels, 0.5)
    masks.remove(kept, [optimizer])
    assert not model.head.weight.requires_grad
    model.head.requires_grad_(True)
    train(model, optimizer, 3)
    gone = removed_indices(channels.groups, kept)['head.weight']
    assert not removed(model.head.weight, gone).any()


def test_kept_is_not_shared_with_the_caller():
    model = net()
    channels = trace(model, torch.randn(1, 3, 8, 8).double())
    masks = ChannelMasks(model, channels.groups)
    kept = random_choice(channels, 0.5)
    masks.remove(kept)
    expected = masks.counts.tolist()
    kept[0][:] = True
    assert masks.counts.tolist() == expected


def test_neuron_masks():
    """For the perturbation: which rows, or columns of a transposed convolution, are left."""
    model = randomise(
        Net(
            lambda n, x: n.head(n.bn(n.up(n.a(x)))),
            a=nn.Conv2d(3, 4, 1),
            up=nn.ConvTranspose2d(4, 6, 2),
            bn=nn.BatchNorm2d(6),
            head=nn.Conv2d(6, 2, 1),
        )
    )
    channels = trace(model, torch.randn(1, 3, 4, 4))
    masks = ChannelMasks(model, channels.groups)
    assert masks.neuron_masks() == {}
    a, up = np.arange(4) != 1, np.arange(6) % 2 == 0
    masks.remove([a, up])
    found = {name: mask.tolist() for name, mask in masks.neuron_masks().items()}
    expected = {
        **{name: a.tolist() for name in ('a.weight', 'a.bias')},
        **{name: up.tolist() for name in ('up.weight', 'up.bias', 'bn.weight', 'bn.bias')},
    }
    assert found == expected


def test_an_optimizer_that_adds_noise_does_not_wake_removed_channels():
    """Langevin dynamics and the like move a weight whose gradient is 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    pruner = Pruner(
        model, lambda m: m(torch.ones(1, 3, 2, 2)), dict(params=0.5), MagnitudeImportance()
    )
    pruner.prune_to(0.5)
    gone = ~torch.as_tensor(pruner.masks.kept[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert model[0].weight[gone].abs().min() > 0
    kept = model[0].weight[~gone].clone()
    pruner.masks.hold()
    assert not model[0].weight[gone].any()
    assert not model[0].bias[gone].any()
    assert not model[1].weight[:, gone].any()
    assert torch.equal(model[0].weight[~gone], kept)
