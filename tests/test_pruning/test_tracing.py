# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d
from torch.nn import functional as F

from _utils.nets import Net, assert_cuts, chain, randomise, runs, trace
from mmdet_adasap.errors import EquivalenceError
from mmdet_adasap.pruning import indices_from_masks, trace_channels, verify_cut
from mmdet_adasap.pruning.analysis import find_channels
from mmdet_adasap.pruning.rules import EXTENSION_RULES, RULES

CASES = {}
IMAGE = (2, 3, 6, 6)


def case(*sizes: int, shape: tuple = IMAGE):
    """A network (given as a function that makes it) and the sizes of its groups, sorted."""

    def register(make):
        CASES[make.__name__] = (make, shape, sorted(sizes))
        return make

    return register


def first_and_head(between, channels: int = 8, into: int | None = None, **layers) -> Net:
    """``head(between(net, first(x)))``: what does an operation do to the first's channels?"""
    return Net(
        lambda net, x: net.head(between(net, net.first(x))),
        first=Conv2d(3, channels, 3, padding=1),
        head=Conv2d(into or channels, 2, 1),
        **layers,
    )


# Understood: cut as far as it goes


@case(8)
def residual():
    return first_and_head(lambda n, x: x + n.b(torch.relu(x)), b=Conv2d(8, 8, 3, padding=1))


@case(8)
def residual_in_place():
    def between(net, x):
        out = net.b(torch.relu(x))
        out += x
        return out

    return first_and_head(between, b=Conv2d(8, 8, 3, padding=1))


@case(8, 6)
def concatenation():
    return Net(
        lambda n, x: n.head(torch.cat([n.a(x), n.b(x)], 1)),
        a=Conv2d(3, 8, 1),
        b=Conv2d(3, 6, 1),
        head=Conv2d(14, 2, 1),
    )


@case(8)
def concatenation_with_the_image():
    return Net(
        lambda n, x: n.head(torch.cat([x, n.a(x), x[:, :1]], 1)),
        a=Conv2d(3, 8, 1),
        head=Conv2d(12, 2, 1),
    )


@case(8)
def concatenation_with_itself():
    return first_and_head(lambda n, x: torch.cat([x, torch.relu(x)], 1), into=16)


@case(8)
def concatenation_along_the_batch():
    return first_and_head(lambda n, x: torch.cat([x, -x], 0))


@case(8, 5)
def flatten_to_linear():
    return Net(
        lambda n, x: n.head(n.fc(F.adaptive_max_pool2d(n.a(x), 3).flatten(1))),
        a=Conv2d(3, 8, 1),
        fc=nn.Linear(72, 5),
        head=nn.Linear(5, 2),
    )


@case(8)
def flatten_of_one_pixel():
    return Net(
        lambda n, x: n.head(n.a(x).mean((2, 3), keepdim=True).flatten(1)),
        a=Conv2d(3, 8, 1),
        head=nn.Linear(8, 2),
    )


@case(8, 6)
def transposed_convolution():
    return first_and_head(lambda n, x: n.up(x), into=6, up=nn.ConvTranspose2d(8, 6, 2, 2))


@case(8)
def depthwise():
    return first_and_head(lambda n, x: n.dw(x), dw=Conv2d(8, 8, 3, groups=8))


@case(8)
def depthwise_with_multiplier():
    return first_and_head(lambda n, x: n.dw(x), into=16, dw=Conv2d(8, 16, 3, groups=8, bias=False))


@case(4)
def channel_shuffle():
    def shuffle(net, x):
        n, _, h, w = x.shape
        return x.view(n, 2, -1, h, w).transpose(1, 2).reshape(n, -1, h, w)

    return first_and_head(shuffle)


@case(4)
def gated_halves():
    def between(net, x):
        value, gate = x.chunk(2, 1)
        return value * gate.sigmoid()

    return first_and_head(between, into=4)


@case(4)
def maxout():
    return first_and_head(lambda n, x: x.unflatten(1, (-1, 2)).max(2).values, into=4)


@case(8, 4)
def squeeze_and_excite():
    def between(net, x):
        gate = net.up(torch.relu(net.down(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(gate)

    return first_and_head(between, down=Conv2d(8, 4, 1), up=Conv2d(4, 8, 1))


@case(8)
def l2_norm():
    def between(net, x):
        norm = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-6
        return net.scale[None, :, None, None].expand_as(x) * x / norm

    return first_and_head(between, scale=nn.Parameter(torch.ones(8)))


@case(8, 8)
def shared_over_levels():
    def run(net, x):
        levels = [net.first(x), net.first(x[:, :, ::2, ::2])]
        return [net.head(torch.relu(net.shared(level))) for level in levels]

    return Net(run, first=Conv2d(3, 8, 1), shared=Conv2d(8, 8, 1), head=Conv2d(8, 2, 1))


@case(8)
def parameter_in_two_modules():
    net = first_and_head(
        lambda n, x: n.c(torch.relu(n.b(x))), b=Conv2d(8, 8, 1), c=Conv2d(8, 8, 1)
    )
    net.c.weight = net.b.weight
    return net


@case(8)
def module_met_twice():
    return first_and_head(lambda n, x: n.b(torch.relu(n.b(x))), b=Conv2d(8, 8, 1))


@case(8, 6)
def linear_on_three_dimensions():
    return Net(
        lambda n, x: n.head(torch.relu(n.fc(n.a(x).flatten(2).transpose(1, 2)))),
        a=Conv2d(3, 8, 1),
        fc=nn.Linear(8, 6),
        head=nn.Linear(6, 2),
    )


@case(8)
def batch_norm_without_affine():
    return first_and_head(lambda n, x: torch.relu(n.bn(x)), bn=nn.BatchNorm2d(8, affine=False))


@case(8)
def batch_norm_without_statistics():
    return first_and_head(
        lambda n, x: torch.relu(n.bn(x)), bn=nn.BatchNorm2d(8, track_running_stats=False)
    )


@case(8)
def prelu():
    return first_and_head(lambda n, x: n.act(x), act=nn.PReLU(8))


@case(8)
def bias_by_hand():
    return first_and_head(lambda n, x: x + n.shift, shift=nn.Parameter(torch.ones(1, 8, 1, 1)))


@case(8)
def scalar_parameter():
    return first_and_head(lambda n, x: x * n.scale, scale=nn.Parameter(torch.ones(())))


@case(8)
def sigmoid_into_convolution():
    return first_and_head(lambda n, x: x.sigmoid() + 3)


@case(8)
def sum_over_channels():
    return first_and_head(lambda n, x: x * x.abs().sum(1, keepdim=True))


@case(8)
def relu_in_place_on_a_view():
    def between(net, x):
        x.view(len(x), x.shape[1], -1).relu_()
        return x

    return first_and_head(between)


@case(8)
def focus():
    def quarters(x):
        return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)

    return Net(
        lambda n, x: n.head(quarters(n.a(x))),
        a=Conv2d(3, 8, 1),
        head=Conv2d(32, 2, 1),
    )


@case(8, 6, shape=(2, 3, 9))
def one_dimensional():
    return Net(
        lambda n, x: n.head(torch.relu(n.bn(n.b(n.a(x))))),
        a=nn.Conv1d(3, 8, 3),
        b=nn.Conv1d(8, 6, 3),
        bn=nn.BatchNorm1d(6),
        head=nn.Conv1d(6, 2, 1),
    )


@case(8, shape=(2, 3, 4, 4, 4))
def three_dimensional():
    return Net(
        lambda n, x: n.head(torch.relu(n.a(x))), a=nn.Conv3d(3, 8, 3), head=nn.Conv3d(8, 2, 1)
    )


@case(8, shape=(4, 3))
def perceptron():
    return Net(
        lambda n, x: n.head(torch.relu(n.bn(n.a(x)))),
        a=nn.Linear(3, 8),
        bn=nn.BatchNorm1d(8),
        head=nn.Linear(8, 2),
    )


@case(8, 6)
def pyramid():
    def run(net, x):
        fine = net.a(x)
        coarse = net.b(F.max_pool2d(fine, 2))
        up = F.interpolate(coarse, size=fine.shape[2:], mode='nearest')
        return net.head(torch.cat([fine, up, F.interpolate(coarse, scale_factor=2)], 1))

    return Net(run, a=Conv2d(3, 8, 1), b=Conv2d(8, 6, 1), head=Conv2d(20, 2, 1))


@case(8)
def outputs_in_containers():
    def run(net, x):
        x = net.first(x)
        return dict(levels=[net.p(x), (net.q(x),)], nothing=None, stride=8, name='x')

    return Net(run, first=Conv2d(3, 8, 1), p=Conv2d(8, 2, 1), q=Conv2d(8, 4, 1))


@case(4, 5, 6)
def attention_by_einsum():
    def run(net, x):
        x = net.first(x)
        q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
        weights = (torch.einsum('ncl,ncm->nlm', q, k) / 2).softmax(-1)
        return net.head(torch.einsum('nlm,ncm->ncl', weights, v).transpose(1, 2))

    return Net(
        run,
        first=Conv2d(3, 5, 1),
        q=Conv2d(5, 4, 1),
        k=Conv2d(5, 4, 1),
        v=Conv2d(5, 6, 1),
        head=nn.Linear(6, 2),
    )


@case(4, 5, 6)
def attention_by_bmm():
    def run(net, x):
        x = net.first(x)
        q, k, v = (layer(x).flatten(2) for layer in (net.q, net.k, net.v))
        weights = (q.transpose(1, 2) @ k / 2).softmax(-1)
        return net.head(weights @ v.transpose(1, 2))

    return Net(
        run,
        first=Conv2d(3, 5, 1),
        q=Conv2d(5, 4, 1),
        k=Conv2d(5, 4, 1),
        v=Conv2d(5, 6, 1),
        head=nn.Linear(6, 2),
    )


@case(8)
def buffer_scales_channels():
    net = first_and_head(lambda n, x: x * n.factor)
    net.register_buffer('factor', torch.rand(8, 1, 1))
    return net


@case(4, 4)
def few_wide_groups():
    """Every group loses the same positions, on both sides."""
    return first_and_head(lambda n, x: n.g(x), g=Conv2d(8, 8, 3, groups=2))


@case(4)
def many_narrow_groups():
    """Two inputs and three outputs a group: whole groups go."""
    return first_and_head(lambda n, x: n.g(x), g=Conv2d(8, 12, 3, groups=4), into=12)


@case(4)
def group_norm():
    return first_and_head(lambda n, x: n.norm(x), norm=nn.GroupNorm(4, 8))


@case(2)
def pixel_shuffle():
    return first_and_head(lambda n, x: F.pixel_shuffle(x, 2), into=2)


@case(4)
def half_of_the_channels():
    return first_and_head(lambda n, x: x[:, : x.shape[1] // 2], into=4)


@case(8)
def rolled_rows():
    return first_and_head(lambda n, x: x.roll(1, 2).flip(3))


@case(8)
def sampled():
    grid = torch.rand(2, 5, 5, 2) * 2 - 1
    return first_and_head(lambda n, x: F.grid_sample(x, grid, align_corners=False))


@case(8)
def picked_places():
    return first_and_head(lambda n, x: x[:, :, [1, 0, 3]][:, :, :, torch.arange(6) % 2 == 0])


@case(8)
def picked_entries():
    """Two indices that are not side by side put their axis in front."""

    def run(net, x):
        y = net.first(x)
        return net.head(y.permute(0, 2, 1, 3)[[0, 1, 1], :, :, [0, 2, 4]])

    return Net(run, first=Conv2d(3, 8, 1), head=nn.Linear(8, 2))


@case(8)
def written_into_a_new_tensor():
    def run(net, x):
        y = net.first(x)
        out = y.new_zeros(4, y.shape[1], 6, 6)
        out[torch.tensor([0, 2])] = y
        out[torch.tensor([True, False, False, True])] = 2 * y
        return net.head(out)

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@case(8)
def written_over():
    def run(net, x):
        y, z = net.first(x), net.second(x)
        y[:, :, torch.tensor([1, 2])] = z[:, :, :2]
        return net.head(y)

    return Net(run, first=Conv2d(3, 8, 1), second=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@case(8)
def like_its_pattern():
    return first_and_head(lambda n, x: torch.cat([x, torch.zeros_like(x)], 1), into=16)


class Splitting(nn.Module):
    """Res2Net's way: the width is an attribute that the forward pass reads."""

    def __init__(self):
        super().__init__()
        self.width = 4
        self.a, self.b = Conv2d(3, 8, 1), Conv2d(4, 4, 1)

    def forward(self, x):
        left, right = torch.split(self.a(x), self.width, 1)
        return torch.cat([left, self.b(right)], 1)


@case(4, 4)
def width_in_an_attribute():
    return Net(lambda n, x: n.head(n.mix(x)), mix=Splitting(), head=Conv2d(8, 2, 1))


class Filling(nn.Module):
    """A RoI extractor's way: the new tensor has the number of channels that an attribute says."""

    def __init__(self):
        super().__init__()
        self.out_channels = 8

    def forward(self, x):
        out = x.new_zeros(len(x), self.out_channels, 6, 6)
        out[torch.arange(len(x))] = x
        return out


@case(8)
def new_tensor_of_an_attribute():
    return first_and_head(lambda n, x: n.fill(x), fill=Filling())


# Not understood, or not cuttable: left whole


@case()
def output_is_the_convolution():
    return Net(lambda n, x: (n.a(x), n.head(n.a(x))), a=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@case()
def output_shares_its_channels():
    return Net(lambda n, x: n.b(n.a(x)) + n.a(x), a=Conv2d(3, 8, 1), b=Conv2d(8, 8, 1))


@case()
def transposed_groups():
    return first_and_head(lambda n, x: n.g(x), g=nn.ConvTranspose2d(8, 8, 3, groups=8))


@case()
def unequal_split():
    return Net(
        lambda n, x: [n.p(n.a(x).split([3, 5], 1)[0]), n.q(n.a(x).split([3, 5], 1)[1])],
        a=Conv2d(3, 8, 1),
        p=Conv2d(3, 2, 1),
        q=Conv2d(5, 2, 1),
    )


@case()
def slice_of_channels():
    return first_and_head(lambda n, x: x[:, 2:6], into=4)


@case()
def one_channel():
    return first_and_head(lambda n, x: x * x[:, 3].unsqueeze(1))


@case()
def channels_by_index():
    return first_and_head(lambda n, x: x[:, torch.tensor([0, 3, 5])], into=3)


@case()
def softmax_over_channels():
    return first_and_head(lambda n, x: x.softmax(1))


@case()
def mean_over_channels():
    return first_and_head(lambda n, x: x * x.mean(1, keepdim=True))


@case()
def norms_divided_by_their_mean():
    """Global response normalisation of ConvNeXt V2: fewer channels have another mean."""

    def normalised(n: nn.Module, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        return n.scale * x * size / (size.mean(1, keepdim=True) + 1e-6) + x

    return first_and_head(normalised, scale=nn.Parameter(torch.rand(8, 1, 1)))


@case()
def max_over_channels():
    return first_and_head(lambda n, x: x * x.amax(1, keepdim=True))


@case()
def deviation_over_channels():
    return first_and_head(lambda n, x: x / x.std(1, keepdim=True))


@case()
def stable_sort_over_channels():
    return first_and_head(lambda n, x: torch.sort(x, dim=1, stable=True).values)


@case()
def smallest_norm_over_channels():
    return first_and_head(
        lambda n, x: x * torch.linalg.vector_norm(x, -math.inf, dim=1, keepdim=True)
    )


@case()
def sum_of_what_is_not_zero():
    return first_and_head(lambda n, x: x * x.sigmoid().sum(1, keepdim=True))


@case()
def sum_after_batch_norm_without_affine():
    return first_and_head(
        lambda n, x: x * n.bn(x).sum(1, keepdim=True), bn=nn.BatchNorm2d(8, affine=False)
    )


@case()
def sum_after_pooling_what_is_not_zero():
    return first_and_head(
        lambda n, x: x * F.adaptive_avg_pool2d(x.sigmoid(), 1).sum(1, keepdim=True)
    )


@case()
def sum_with_a_buffer():
    net = first_and_head(lambda n, x: x * (x + n.shift).sum(1, keepdim=True))
    net.register_buffer('shift', torch.rand(8, 1, 1))
    return net


@case()
def sum_after_sigmoid_on_a_view():
    def between(net, x):
        x.view(len(x), x.shape[1], -1).sigmoid_()
        return x * x.sum(1, keepdim=True)

    return first_and_head(between)


@case()
def sum_of_the_smaller():
    def run(net, x):
        y = net.first(x)
        return net.head(y * torch.minimum(y, x[:, :1]).sum(1, keepdim=True))

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@case()
def sum_of_a_selection():
    def run(net, x):
        y = net.first(x)
        chosen = torch.where(x[:, :1] > 0, y, torch.tensor(5.0))
        return net.head(y * chosen.sum(1, keepdim=True))

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@case(6)
def sum_of_an_outer_sum():
    def run(net, x):
        a, b = net.a(x).mean((2, 3)), net.b(x).mean((2, 3))
        return net.head((a[:, :, None] + b[:, None, :]).sum(1))

    return Net(run, a=Conv2d(3, 8, 1), b=Conv2d(3, 6, 1), head=nn.Linear(6, 2))


@case(5)
def sum_over_rows_with_a_bias():
    def run(net, x):
        return net.head(net.mix(net.a(x).flatten(2)).sum(1))

    return Net(run, a=Conv2d(3, 8, 1), mix=nn.Linear(36, 5), head=nn.Linear(5, 2))


@case()
def group_norm_without_weights():
    """Nothing of it is cut, so nothing would tell it the new number of groups."""
    return first_and_head(lambda n, x: n.norm(x), norm=nn.GroupNorm(4, 8, affine=False))


@case()
def group_norm_with_one_group():
    return first_and_head(lambda n, x: n.norm(x), norm=nn.GroupNorm(1, 8))


@case()
def layer_norm():
    return first_and_head(
        lambda n, x: n.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(8)
    )


@case()
def sum_of_differences_of_what_is_not_zero():
    return first_and_head(lambda n, x: (x.sigmoid() - x.exp()).sum(1, keepdim=True), into=1)


@case()
def sum_of_what_is_large():
    def run(net, x):
        y = net.first(x) + x.mean(1, keepdim=True)
        return net.head((y > 10).float().sum(1, keepdim=True))

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(1, 2, 1))


@case()
def rolled_channels():
    return first_and_head(lambda n, x: x.roll(1, 1))


@case()
def uneven_part():
    return first_and_head(lambda n, x: x[:, :3], into=3)


@case()
def picked_channels():
    return first_and_head(lambda n, x: x[:, [0, 2, 5]], into=3)


@case()
def unknown_operation():
    return first_and_head(lambda n, x: x.cumprod(1))


@case()
def all_axes_squeezed():
    return Net(
        lambda n, x: n.head(F.adaptive_avg_pool2d(n.a(x), 1).squeeze()),
        a=Conv2d(3, 8, 1),
        head=nn.Linear(8, 2),
    )


@case()
def copied_into_a_part():
    def between(net, x):
        out = torch.zeros(len(x), 12, *x.shape[2:])
        out[:, :8] = x
        return out

    return first_and_head(between, into=12)


@case()
def padded_channels():
    return first_and_head(lambda n, x: F.pad(x, (0, 0, 0, 0, 0, 4)), into=12)


@case()
def fixed_operand():
    factor = torch.rand(8, 1, 1)
    return first_and_head(lambda n, x: x * factor)


@case(8)
def standardised_weight():
    def run(net, x):
        weight = net.first.weight - net.first.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return net.head(F.conv2d(x, weight, net.first.bias))

    return Net(run, first=Conv2d(3, 8, 3), head=Conv2d(8, 2, 1))


@case()
def weight_in_a_buffer():
    net = Net(lambda n, x: n.head(F.conv2d(x, n.kernel)), head=Conv2d(8, 2, 1))
    net.register_buffer('kernel', torch.rand(8, 3, 3, 3))
    return net


@case()
def left_as_numpy():
    def run(net, x):
        y = net.first(x)
        return net.head(y), y.detach().numpy()

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@case()
def left_as_list():
    def run(net, x):
        y = net.first(x)
        return net.head(y), y.tolist()

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@dataclasses.dataclass
class Result:
    features: Tensor


@case()
def output_in_a_dataclass():
    def run(net, x):
        y = net.first(x)
        return net.head(y), Result(y)

    return Net(run, first=Conv2d(3, 8, 1), head=Conv2d(8, 2, 1))


@pytest.mark.parametrize('name', CASES)
def test_groups_and_their_cuts(name):
    make, shape, sizes = CASES[name]
    torch.manual_seed(0)
    model, x = randomise(make()), torch.randn(shape)
    # In both modes, so that it shows if one of them is given to all modules.
    model.train()
    next(model.children()).eval()
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    channels = trace(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert_unchanged(model, before)
    assert sorted(channels.sizes.tolist()) == sizes
    assert_cuts(model, x, channels)


def assert_unchanged(model: nn.Module, before: nn.Module) -> None:
    """Modes, weights, what is trained and buffers are as they were."""
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for old, new in zip(before.parameters(), model.parameters(), strict=True):
        assert torch.equal(old, new)
        assert new.requires_grad == old.requires_grad
        assert new.grad is None
    for old, new in zip(before.buffers(), model.buffers(), strict=True):
        assert torch.equal(old, new)


# Never wrong: whatever it is, cut rightly or refuse

WEIRD = {
    'multi-head attention': lambda: Net(
        lambda n, x: n.head(n.mix(*[n.a(x).flatten(2).transpose(1, 2)] * 3)[0]),
        a=Conv2d(3, 8, 1),
        mix=nn.MultiheadAttention(8, 2, batch_first=True),
        head=nn.Linear(8, 2),
    ),
    'transformer layer': lambda: Net(
        lambda n, x: n.head(n.mix(n.a(x).flatten(2).transpose(1, 2))),
        a=Conv2d(3, 8, 1),
        mix=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        head=nn.Linear(8, 2),
    ),
    'recurrent': lambda: Net(
        lambda n, x: n.head(n.mix(n.a(x).flatten(2).transpose(1, 2))[0]),
        a=Conv2d(3, 8, 1),
        mix=nn.LSTM(8, 6, batch_first=True),
        head=nn.Linear(6, 2),
    ),
    'weight norm': lambda: first_and_head(
        lambda n, x: n.b(x), b=nn.utils.parametrizations.weight_norm(Conv2d(8, 8, 1))
    ),
    'spectral norm': lambda: first_and_head(
        lambda n, x: n.b(x), b=nn.utils.parametrizations.spectral_norm(Conv2d(8, 8, 1))
    ),
    'instance norm': lambda: first_and_head(
        lambda n, x: n.b(x), b=nn.InstanceNorm2d(8, affine=True)
    ),
    'bilinear': lambda: Net(
        lambda n, x: n.head(n.mix(n.a(x).mean((2, 3)), n.b(x).mean((2, 3)))),
        a=Conv2d(3, 8, 1),
        b=Conv2d(3, 6, 1),
        mix=nn.Bilinear(8, 6, 5),
        head=nn.Linear(5, 2),
    ),
    'generated weight': lambda: Net(
        lambda n, x: n.head(F.conv2d(n.a(x), n.make(n.a(x).mean((0, 2, 3))).view(6, 8, 1, 1))),
        a=Conv2d(3, 8, 1),
        make=nn.Linear(8, 48),
        head=Conv2d(6, 2, 1),
    ),
    'stack': lambda: first_and_head(lambda n, x: torch.stack([x, -x], 2).sum(2)),
    'stack over channels': lambda: first_and_head(
        lambda n, x: torch.stack([x, -x], 1).flatten(1, 2), into=16
    ),
    'repeat': lambda: first_and_head(lambda n, x: x.repeat(1, 2, 1, 1), into=16),
    'unfold': lambda: Net(
        lambda n, x: n.head(F.unfold(n.a(x), 3).transpose(1, 2)),
        a=Conv2d(3, 8, 1),
        head=nn.Linear(72, 2),
    ),
    'covariance': lambda: Net(
        lambda n, x: n.head((n.a(x).flatten(2) @ n.a(x).flatten(2).mT).flatten(1)),
        a=Conv2d(3, 4, 1),
        head=nn.Linear(16, 2),
    ),
    'written through a view': lambda: first_and_head(
        lambda n, x: written_through_a_view(torch.zeros(x.shape), x)
    ),
    'fixed view': lambda: first_and_head(
        lambda n, x: x.reshape(len(x), -1, 4, 6, 6).flip(2).flatten(1, 2)
    ),
    'fixed split': lambda: first_and_head(lambda n, x: sum(x.split(4, 1)), into=4),
    'channels into the batch': lambda: Net(
        lambda n, x: n.head(
            n.b(n.a(x).flatten(0, 1).unsqueeze(1)).mean((1, 2, 3)).view(len(x), -1)
        ),
        a=Conv2d(3, 8, 1),
        b=Conv2d(1, 4, 3),
        head=nn.Linear(8, 2),
    ),
    'nan per channel': lambda: first_and_head(lambda n, x: x / x.abs().sum((2, 3), keepdim=True)),
    'in-place on a chunk': lambda: first_and_head(lambda n, x: chunk_in_place(x)),
    'sum over a slice written in place': lambda: first_and_head(
        lambda n, x: row_in_place(x) * x.sum(1, keepdim=True)
    ),
}


def standardised_without_eps() -> Net:
    def run(net, x):
        weight = net.first.weight / net.first.weight.std((1, 2, 3), keepdim=True)
        return net.head(F.conv2d(x, weight, net.first.bias))

    return Net(run, first=Conv2d(3, 8, 3), head=Conv2d(8, 2, 1))


WEIRD['standardised without eps'] = standardised_without_eps


def written_through_a_view(out: Tensor, x: Tensor) -> Tensor:
    out.view(len(out), -1).copy_(x.flatten(1))
    return out


def chunk_in_place(x: Tensor) -> Tensor:
    x.chunk(2, 1)[0].sigmoid_()
    return x


def row_in_place(x: Tensor) -> Tensor:
    x[:, :, :1].sigmoid_()
    return x


# In which of them operations are not understood, and which module is left whole for it.
LEFT_WHOLE = {
    'generated weight': '',
    'fixed split': 'head',
    'nan per channel': 'head',
    'standardised without eps': 'head',
}


@pytest.mark.parametrize('name', WEIRD)
def test_never_wrong(name):
    torch.manual_seed(0)
    model, x = randomise(WEIRD[name]()), torch.randn(IMAGE)
    lines = []
    channels = find_channels(model, runs(x), lines.append)
    assert_cuts(model, x, channels)
    if name in LEFT_WHOLE:
        assert list(channels.excluded) == [LEFT_WHOLE[name]]
        assert lines[0].startswith(f'{LEFT_WHOLE[name] or "the model"} left whole: the cut mod')
    else:
        assert not channels.excluded
        assert not lines


def test_python_that_reads_the_size_is_found_out():
    """It divides by a number: no operation tells where that came from."""
    torch.manual_seed(0)
    model = randomise(first_and_head(lambda n, x: n.b(x / x.shape[1] ** 0.5), b=Conv2d(8, 8, 1)))
    x = torch.randn(IMAGE)
    groups = trace(model, x).groups
    assert [group.size for group in groups] == [8, 8]
    kept = [np.arange(8) < 4, np.ones(8, dtype=bool)]
    with pytest.raises(EquivalenceError, match=r'of what b returns;'):
        verify_cut(model, indices_from_masks(model, groups, kept), runs(x))


mmcv_ops = pytest.importorskip('mmcv.ops', reason='needs the compiled operators of mmcv')
mmcv_extension = pytest.importorskip('mmcv._ext')


def deformed(net: Net, x: Tensor) -> Tensor:
    y = net.first(x)
    offset = net.offset(y)
    if isinstance(net.mix, mmcv_ops.ModulatedDeformConv2d):
        return net.head(net.mix(y, offset, offset[:, :9].sigmoid()))
    return net.head(net.mix(y, offset))


def regions(net: Net, x: Tensor) -> Tensor:
    rois = torch.tensor([[0, 0.5, 1, 4, 4], [1, 2, 0, 5, 5.0]])
    return net.head(net.pool(net.first(x), rois).flatten(1))


EXTENSIONS = {
    'deformable': (deformed, dict(mix=mmcv_ops.DeformConv2d(8, 6, 3, padding=1)), [6, 8]),
    'deformable groups': (
        deformed,
        dict(mix=mmcv_ops.DeformConv2d(8, 6, 3, padding=1, groups=2)),
        [3, 4],
    ),
    'modulated': (deformed, dict(mix=mmcv_ops.ModulatedDeformConv2d(8, 6, 3, padding=1)), [6, 8]),
    'RoIAlign': (regions, dict(pool=mmcv_ops.RoIAlign(2)), [8]),
}


@pytest.mark.parametrize('name', EXTENSIONS)
def test_compiled_operators(name):
    run, layers, sizes = EXTENSIONS[name]
    torch.manual_seed(0)
    last = Conv2d(6, 2, 1) if run is deformed else nn.Linear(32, 2)
    model = Net(run, first=Conv2d(3, 8, 1), offset=Conv2d(8, 18, 1), **layers, head=last)
    model, x = randomise(model), torch.randn(IMAGE)
    function = mmcv_extension.roi_align_forward
    channels = trace(model, x)
    assert sorted(channels.sizes.tolist()) == sizes
    assert_cuts(model, x, channels)
    assert mmcv_extension.roi_align_forward is function


def test_a_rule_that_fails_freezes(monkeypatch):
    def fail(call):
        raise IndexError('no such axis')

    monkeypatch.setitem(RULES, 'aten::relu', fail)
    channels = trace(first_and_head(lambda n, x: torch.relu(x)), torch.randn(IMAGE))
    assert not channels.groups
    reason = 'aten::relu, whose rule fails (IndexError: no such axis), in the model'
    assert reason in channels.frozen


def test_a_compiled_operator_without_a_rule_freezes(monkeypatch):
    monkeypatch.delitem(EXTENSION_RULES, 'roi_align_forward')
    model = Net(regions, first=Conv2d(3, 8, 1), pool=mmcv_ops.RoIAlign(2), head=nn.Linear(32, 2))
    channels = trace(randomise(model), torch.randn(IMAGE))
    assert not channels.groups
    assert 'roi_align_forward, which has no rule, in pool' in channels.frozen


def test_unreached_parameters_are_reported_and_left():
    model = first_and_head(lambda n, x: x, spare=Conv2d(8, 8, 1))
    channels = trace(model, torch.randn(IMAGE))
    assert channels.unreached == ['spare.weight', 'spare.bias']
    assert {m.name for g in channels.groups for m in g.members} == {
        'first.weight',
        'first.bias',
        'head.weight',
    }


def test_untrained_weights_are_left():
    model = chain()
    model.conv3.weight.requires_grad_(False)
    channels = trace(model, torch.randn(IMAGE))
    assert sorted(channels.sizes.tolist()) == [8, 10]
    (reason,) = [r for r in channels.frozen if 'not trained' in r]
    assert [ref.name for ref in channels.frozen[reason]] == ['conv3.weight']


def test_frozen_names_the_operation_and_the_module():
    class Roll(nn.Module):
        def forward(self, x):
            return x.roll(1, 1)

    channels = trace(first_and_head(lambda n, x: n.odd(x), odd=Roll()), torch.randn(IMAGE))
    (reason,) = [r for r in channels.frozen if 'roll' in r]
    assert reason.endswith('in odd')
    assert [tuple(ref) for ref in channels.frozen[reason]] == [('first.weight', 0)]


def test_members_of_a_flatten():
    channels = trace(chain(), torch.randn(IMAGE))
    assert [(g.name, g.size) for g in channels.groups] == [('conv1', 8), ('conv3', 12), ('fc', 10)]
    (fc,) = [m for m in channels.groups[1].members if m.name == 'fc.weight']
    assert (fc.axis, fc.is_output) == (1, False)
    assert np.array_equal(fc.index, np.arange(48).reshape(12, 4))
    assert {(m.name, m.axis) for m in channels.groups[0].members if m.is_output} == {
        ('conv1.weight', 0),
        ('conv2.weight', 0),
    }


def test_what_a_model_does_in_train_and_eval_is_undone():
    """mmdet's backbones freeze stages there."""

    class Freezing(Net):
        def train(self, mode: bool = True) -> 'Freezing':
            self.first.weight.requires_grad_(False)
            return super().train(mode)

    model = Freezing(
        lambda n, x: n.head(n.bn(n.first(x))),
        first=Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        head=Conv2d(8, 2, 1),
    )
    assert_cuts(model, torch.randn(IMAGE))
    assert trace(model, torch.randn(IMAGE)).sizes.tolist() == [8]
    assert model.first.weight.requires_grad
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize('training', [True, False])
def test_what_a_model_computes_for_eval_mode(training):
    """Attention of LeViT looks up its biases there; LoRA adds its product to the weights."""

    class Preparing(Net):
        merged = False

        def train(self, mode: bool = True) -> None:
            super().train(mode)
            self.head.weight.data += self.merged * 1.0 - (not mode) * 1.0
            self.merged = not mode
            vars(self).pop('factor', None)
            if not mode:
                self.factor = self.head.bias.detach().sum()

    model = Preparing(
        lambda n, x: n.head(n.first(x)) * (1 if n.training else n.factor),
        first=Conv2d(3, 8, 3),
        head=Conv2d(8, 2, 1),
    )
    model.head.weight.data.mul_(256).round_()  # so that it can be added and subtracted exactly
    model.train(training)
    before = copy.deepcopy(model)
    assert_cuts(model, torch.randn(IMAGE))
    assert trace(model, torch.randn(IMAGE)).sizes.tolist() == [8]
    assert model.merged is (not training)
    assert hasattr(model, 'factor') is (not training)
    assert torch.equal(model.head.weight, before.head.weight)


def test_modes_come_back_when_the_run_fails():
    model = chain().train()
    with pytest.raises(ZeroDivisionError):
        trace_channels(model, lambda m: 1 / 0)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize('output', [None, 'text', 3.0, [], object()])
def test_a_run_without_output_tensors_is_refused(output):
    """Nothing would be protected, and nothing compared."""
    model = chain()

    def forward(m):
        m(torch.randn(IMAGE))
        return output

    with pytest.raises(ValueError, match='forward'):
        trace_channels(model, forward)


def test_random_numbers_of_the_model_are_the_same_each_time():
    torch.manual_seed(0)
    model = randomise(first_and_head(lambda n, x: x + torch.randn(len(x), 1, 1, 1)))
    state = torch.get_rng_state()
    x = torch.randn(IMAGE)
    torch.set_rng_state(state)
    assert_cuts(model, x)
    assert torch.equal(torch.get_rng_state(), state)


# Random networks of what is understood are cut without a complaint


def random_net(seed: int) -> Net:
    rng = np.random.default_rng(seed)
    layers, plan = {}, []

    def conv(inputs, outputs, **kwargs):
        name = f'c{len(layers)}'
        layers[name] = Conv2d(inputs, outputs, 3, padding=1, **kwargs)
        return name

    widths = [3]
    for _ in range(rng.integers(4, 10)):
        i = int(rng.integers(len(widths)))
        kind = rng.choice(['conv', 'bn', 'act', 'cat', 'add', 'dw', 'gate', 'chunk', 'sum'])
        w, j = widths[i], int(rng.integers(len(widths)))
        if kind == 'conv' or i == 0:
            out = int(rng.integers(2, 9)) * 2
            plan.append(('layer', conv(w, out), i))
        elif kind == 'bn':
            out, name = w, f'n{len(layers)}'
            layers[name] = nn.BatchNorm2d(w, affine=bool(rng.integers(2)))
            plan.append(('layer', name, i))
        elif kind == 'act':
            out = w
            plan.append((rng.choice(['relu', 'sigmoid', 'silu', 'exp_shift']), i))
        elif kind == 'cat':
            out = w + widths[j]
            plan.append(('cat', i, j))
        elif kind == 'add':
            out = w
            plan.append(('add', i, conv(widths[j], w), j))
        elif kind == 'dw':
            out = w * int(rng.integers(1, 3))
            plan.append(('layer', conv(w, out, groups=w), i))
        elif kind == 'gate':
            out = w
            plan.append(('gate', i))
        elif kind == 'chunk' and w % 2 == 0:
            out = w // 2
            plan.append(('chunk', i))
        else:
            out = w
            plan.append(('sum', i))
        widths.append(out)
    layers['head'] = Conv2d(widths[-1], 2, 1)
    # All that was made reaches an output, as a rule through a layer.
    layers['all'] = Conv2d(sum(widths), 3, 1)

    unary = {
        'relu': F.relu,
        'sigmoid': torch.sigmoid,
        'silu': F.silu,
        'exp_shift': lambda y: (y * 0.1).exp() - 0.5,
        'gate': lambda y: y * y.mean((2, 3), keepdim=True).sigmoid(),
        'chunk': lambda y: y.chunk(2, 1)[0] * y.chunk(2, 1)[1].tanh(),
        'sum': lambda y: y / (1 + y.abs().sum(1, keepdim=True)),
    }

    def run(net, x):
        values = [x]
        for kind, *rest in plan:
            if kind == 'layer':
                values.append(getattr(net, rest[0])(values[rest[1]]))
            elif kind == 'cat':
                values.append(torch.cat([values[rest[0]], values[rest[1]]], 1))
            elif kind == 'add':
                values.append(values[rest[0]] + getattr(net, rest[1])(values[rest[2]]))
            else:
                values.append(unary[kind](values[rest[0]]))
        return net.head(values[-1]), net.all(torch.cat(values, 1))

    return Net(run, **layers)


def test_random_networks():
    for seed in range(25):
        print(f'seed {seed}')  # pytest shows it if the cut is wrong
        torch.manual_seed(seed)
        model = randomise(random_net(seed), seed)
        assert_cuts(model, torch.randn(2, 3, 4, 4))
