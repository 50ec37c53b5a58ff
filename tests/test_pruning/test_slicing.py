# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy

import numpy as np
import pytest
import torch
from torch import nn

from _utils.nets import Net, assert_cuts, chain, random_choice, randomise, trace
from mmdet_adasap.apis import prune_model
from mmdet_adasap.errors import StructureError
from mmdet_adasap.pruning import ChannelMasks, channel_counts, cut, indices_from_masks


def half(model: nn.Module) -> dict:
    channels = trace(model, torch.randn(1, 3, 8, 8))
    return indices_from_masks(model, channels.groups, random_choice(channels, 0.5))


def test_cut_slices_values_and_counts():
    dense, model = chain(), chain()
    keep = half(model)
    cut(model, keep, channel_counts(model, keep))
    rows, columns = keep['conv2.weight'][0], keep['conv2.weight'][1]
    assert torch.equal(model.conv2.weight, dense.conv2.weight[rows][:, columns])
    assert torch.equal(model.bn2.running_var, dense.bn2.running_var[rows])
    assert (model.conv2.out_channels, model.conv2.in_channels) == (len(rows), len(columns))
    assert model.bn2.num_features == len(rows)
    assert model.fc.in_features == 4 * model.conv3.out_channels == model.fc.weight.shape[1]
    assert all(p.is_contiguous() for p in model.parameters())


def test_cut_keeps_identity_and_param_groups():
    model = chain()
    before = dict(model.named_parameters())
    model.bn1.weight.requires_grad_(False)
    keep = half(model)
    cut(model, keep, channel_counts(model, keep))
    for name, parameter in model.named_parameters():
        assert parameter is before[name]
        assert parameter.requires_grad == (name != 'bn1.weight')
        assert parameter.grad is None


def test_state_of_the_optimizer_follows():
    model = chain()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    before = copy.deepcopy(optimizer.state[model.conv2.weight])
    keep = half(model)
    cut(model, keep, channel_counts(model, keep), [optimizer])
    state = optimizer.state[model.conv2.weight]
    rows, columns = keep['conv2.weight'][0], keep['conv2.weight'][1]
    assert torch.equal(state['exp_avg'], before['exp_avg'][rows][:, columns])
    assert torch.equal(state['exp_avg_sq'], before['exp_avg_sq'][rows][:, columns])
    assert torch.equal(state['step'], before['step'])
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()


def test_training_goes_on_while_an_old_graph_is_alive():
    """A training loop may still hold the loss of the last dense step."""
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    channels = trace(model, torch.randn(1, 3, 8, 8))
    masks = ChannelMasks(model, channels.groups)
    kept = random_choice(channels, 0.5)
    masks.remove(kept, [optimizer])
    loss = model(torch.randn(2, 3, 8, 8)).sum()
    loss.backward()
    optimizer.step()
    masks.release()
    keep = indices_from_masks(model, channels.groups, kept)
    cut(model, keep, channel_counts(model, keep), [optimizer])
    optimizer.zero_grad()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert model.conv1.weight.grad.shape == model.conv1.weight.shape
    assert loss.grad_fn is not None


def test_counts_of_all_kinds_of_modules():
    class Scale(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))
            self.channels = channels
            self.levels = channels

        def forward(self, x):
            return x * self.weight[None, :, None, None]

    model = Net(
        lambda n, x: n.head(n.up(n.scale(n.dw(n.a(x))))),
        a=nn.Conv2d(3, 6, 1),
        dw=nn.Conv2d(6, 12, 3, groups=6),
        scale=Scale(12),
        up=nn.ConvTranspose2d(12, 5, 2),
        head=nn.Conv2d(5, 2, 1),
    )
    channels = trace(model, torch.randn(1, 3, 8, 8))
    kept = [np.arange(6) < 4, np.arange(5) < 3]
    assert channel_counts(model, indices_from_masks(model, channels.groups, kept)) == {
        'a': {'out_channels': 4},
        'dw': {'in_channels': 4, 'out_channels': 8, 'groups': 4},
        'scale': {'channels': 8},
        'up': {'in_channels': 8, 'out_channels': 3},
        'head': {'in_channels': 3},
    }


@pytest.mark.parametrize(
    ('keep', 'attrs', 'named'),
    [
        ({'conv9.weight': {0: [0]}}, {}, r"keep names 'conv9.weight'.*config must build"),
        ({'conv1.weight': {0: [0, 8]}}, {}, r"keep\['conv1.weight'\]\[0\] goes up to index 8"),
        ({'conv1.weight': {4: [0]}}, {}, r"keep\['conv1.weight'\]\[4\]"),
        ({'conv1.weight': {-1: [0]}}, {}, r"keep\['conv1.weight'\]\[-1\]"),
        ({'bn1.num_batches_tracked': {0: [0]}}, {}, r'num_batches_tracked'),
        ({}, {'conv9': {'groups': 2}}, r'attrs names conv9\.groups'),
        ({}, {'conv1': {'groupies': 2}}, r'attrs names conv1\.groupies'),
        ({}, {'conv1': {'stride': 2}}, r'attrs names conv1\.stride'),
    ],
)
def test_a_structure_of_another_model_changes_nothing(keep, attrs, named):
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keep = {'conv2.weight': {0: [1, 2]}, **keep}
    attrs = {'conv2': {'out_channels': 2}, **attrs}
    with pytest.raises(StructureError, match=named):
        cut(model, keep, attrs, [optimizer])
    fresh = chain()
    assert model.conv2.out_channels == 8
    for a, b in zip(model.state_dict().values(), fresh.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('groups', [2, 4, 8])
def test_a_grouped_transposed_convolution_is_cut_twice(groups):
    """What it loses, whole groups or positions in each, stays as at the first cut."""
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.head(n.up(n.first(x))),
        first=nn.Conv2d(3, 16, 1),
        up=nn.ConvTranspose2d(16, 24, 2, 2, groups=groups),
        head=nn.Conv2d(24, 2, 1),
    )
    model, x = randomise(model), torch.randn(2, 3, 4, 4)
    for target in (0.6, 0.3):
        prune_model(model, inputs=x, target=dict(params=target), round_to=1)
        up, lost = model.up, groups >= 16 // groups
        assert up.weight.shape == (up.in_channels, up.out_channels // up.groups, 2, 2)
        assert (up.groups < groups) == lost
        assert (up.in_channels / up.groups < 16 / groups) == (not lost)
        assert model.first.out_channels == up.in_channels < 16
        assert model.head.in_channels == up.out_channels
        assert_cuts(model, x)
