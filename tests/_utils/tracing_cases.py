# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Networks of one operation each, with the sizes of the groups that a trace finds in them.

Tracing, costs, structures and shape-only runs are tested on all of them.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import Conv2d
from torch.nn import functional as F

from _utils.nets import Net

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


@case(8)
def transposed_depthwise():
    return first_and_head(lambda n, x: n.g(x), g=nn.ConvTranspose2d(8, 8, 3, groups=8))


@case(8, 8)
def transposed_depthwise_between_layers():
    """As in the neck of CenterNet, with a norm behind it and no bias."""
    return first_and_head(
        lambda n, x: n.c(torch.relu(n.bn(n.g(x)))),
        g=nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8, bias=False),
        bn=nn.BatchNorm2d(8),
        c=Conv2d(8, 8, 1),
    )


@case(8)
def transposed_depthwise_with_multiplier():
    return first_and_head(
        lambda n, x: n.g(x), into=24, g=nn.ConvTranspose2d(8, 24, 2, 2, groups=8)
    )


@case(4)
def transposed_many_narrow_groups():
    """Two inputs and three outputs a group: whole groups go."""
    return first_and_head(
        lambda n, x: n.g(x), into=12, g=nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4)
    )


@case(4, 6)
def transposed_few_wide_groups():
    """Every group loses the same positions, on both sides."""
    return first_and_head(lambda n, x: n.g(x), into=12, g=nn.ConvTranspose2d(8, 12, 3, groups=2))


@case(4, 4, shape=(2, 3, 9))
def transposed_groups_without_bias_in_one_dimension():
    return Net(
        lambda n, x: n.head(torch.relu(n.g(n.a(x)))),
        a=nn.Conv1d(3, 8, 3),
        g=nn.ConvTranspose1d(8, 8, 3, groups=2, bias=False),
        head=nn.Conv1d(8, 2, 1),
    )


@case(8, shape=(2, 3, 4, 4, 4))
def transposed_depthwise_in_three_dimensions():
    return Net(
        lambda n, x: n.head(n.g(n.a(x))),
        a=nn.Conv3d(3, 8, 3),
        g=nn.ConvTranspose3d(8, 8, 2, groups=8),
        head=nn.Conv3d(8, 2, 1),
    )


@case(2)
def three_maps_by_unbind():
    """Three maps of two channels each, not two channels in three places."""

    def between(net, x):
        q, k, v = x.unflatten(1, (3, -1)).unbind(1)
        return q.sigmoid() * k + v

    return first_and_head(between, 6, 2)


@case(2)
def three_maps_by_index():
    def between(net, x):
        maps = x.view(len(x), 3, -1, *x.shape[2:]).transpose(0, 1)
        return maps[0].sigmoid() * maps[1] + maps[2]

    return first_and_head(between, 6, 2)


@case(3)
def three_maps_by_chunk():
    def between(net, x):
        q, k, v = x.unflatten(1, (-1, 3)).chunk(3, 2)
        return (q.sigmoid() * k + v).squeeze(2)

    return first_and_head(between, 9, 3)


@case(3)
def three_maps_by_slices():
    def between(net, x):
        maps = x.unflatten(1, (3, -1))
        return (maps[:, :1] + maps[:, 1:2].sigmoid() * maps[:, -1:]).flatten(1, 2)

    return first_and_head(between, 9, 3)


@case(4)
def parts_by_tensor_split():
    def between(net, x):
        q, k, v = x.tensor_split(3, 1)
        return q.sigmoid() * k + v

    return first_and_head(between, 12, 4)


@case(4)
def parts_by_hsplit():
    def between(net, x):
        q, k, v = x.hsplit(3)
        return q.sigmoid() * k + v

    return first_and_head(between, 12, 4)


@case(4)
def parts_by_unsafe_chunk():
    def between(net, x):
        q, k, v = x.unsafe_chunk(3, 1)
        return q.sigmoid() * k + v

    return first_and_head(between, 12, 4)


@case(4)
def parts_by_unsafe_split_with_sizes():
    def between(net, x):
        q, k, v = x.unsafe_split_with_sizes([x.shape[1] // 3] * 3, 1)
        return q.sigmoid() * k + v

    return first_and_head(between, 12, 4)


@case(8)
def images_by_unbind():
    return first_and_head(lambda n, x: torch.stack([2 * y for y in x.unbind(0)]))


@case()
def channels_by_unbind():
    return first_and_head(lambda n, x: sum(x.unbind(1)).unsqueeze(1), into=1)


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
