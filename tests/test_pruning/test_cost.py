# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy

import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from torch import nn
from torch.nn import functional as F

from _utils.nets import Net, chain, random_choice, randomise, trace
from _utils.tracing_cases import CASES
from mmdet_adasap.pruning import channel_counts, cut, indices_from_masks
from mmdet_adasap.pruning.cost import Cost


def norms_and_resizing() -> Net:
    def run(net, x):
        x = net.group_norm(net.a(x))
        y = net.b(F.max_pool2d(torch.relu(net.bn(net.c(x))), 2))
        y = net.up(F.adaptive_avg_pool2d(y, 4))
        y = F.interpolate(y, scale_factor=2, mode='bilinear') + F.interpolate(y, scale_factor=2)
        return net.norm(net.fc(y.flatten(2).transpose(1, 2)))

    return Net(
        run,
        a=nn.Conv2d(3, 8, 3, padding=1),
        group_norm=nn.GroupNorm(2, 8),
        c=nn.Conv2d(8, 8, 1, bias=False),
        bn=nn.BatchNorm2d(8, affine=False),
        b=nn.Conv2d(8, 16, 3, groups=8),
        up=nn.ConvTranspose2d(16, 6, 2, 2),
        fc=nn.Linear(6, 4),
        norm=nn.LayerNorm(4),
    )


def grouped_both_ways() -> Net:
    return Net(
        lambda n, x: n.head(n.up(n.wide(n.a(x)))),
        a=nn.Conv2d(3, 8, 1),
        wide=nn.Conv2d(8, 8, 3, groups=2),
        up=nn.ConvTranspose2d(8, 12, 3, groups=4),
        head=nn.Conv2d(12, 2, 1),
    )


NETS = {
    'chain': chain,
    'norms and resizing': norms_and_resizing,
    'grouped both ways': grouped_both_ways,
    **{
        name: CASES[name][0]
        for name in (
            'residual',
            'flatten_to_linear',
            'transposed_convolution',
            'depthwise_with_multiplier',
            'squeeze_and_excite',
            'concatenation_with_the_image',
            'batch_norm_without_statistics',
            'attention_by_bmm',
            'linear_on_three_dimensions',
            'shared_over_levels',
            'parameter_in_two_modules',
        )
    },
}


def counted(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Parameters and multiply-accumulates as PyTorch and mmengine count them."""
    info = get_model_complexity_info(model.eval(), inputs=(x,), show_table=False, show_arch=False)
    return sum(p.numel() for p in model.parameters()), info['flops']


@pytest.mark.parametrize('name', NETS)
def test_cost_is_the_real_count(name):
    torch.manual_seed(0)
    model, x = randomise(NETS[name]()), torch.randn(1, 3, 8, 8)
    channels = trace(model, x)
    assert (
        channels.params(channels.group_sizes),
        channels.flops(channels.group_sizes),
    ) == counted(model, x)
    for seed, fraction in enumerate((0.0, 0.3, 0.7)):
        kept = random_choice(channels, fraction, seed)
        keep = indices_from_masks(model, channels.groups, kept)
        slim = copy.deepcopy(model)
        cut(slim, keep, channel_counts(slim, keep))
        counts = np.array([k.sum() for k in kept])
        assert (channels.params(counts), channels.flops(counts)) == counted(slim, x)


def test_flops_are_those_of_the_whole_batch():
    model = chain()
    x = torch.randn(4, 3, 8, 8)
    channels = trace(model, x)
    assert channels.cost('flops')(channels.group_sizes) == counted(model, x)[1]


def test_sum_of_products():
    cost = Cost(2)
    cost.add(9, (0, {0: 1.0}), (3, {}))  # 27 a
    cost.add(2, (4, {1: 5.0}), (1, {0: 1.0, 1: 1.0}))  # 2 (4 + 5 b) (1 + a + b)
    cost.add(7, (3, {}))
    cost.add(0, (3, {}))
    assert cost(np.array([2, 3])) == 27 * 2 + 2 * 19 * 6 + 21
    cost.add(1, (1, {1: 1.0}))
    assert cost(np.array([0, 0])) == 8 + 21 + 1


def test_a_model_without_groups_costs_a_constant():
    cost = Cost(0)
    cost.add(3, (5, {}))
    assert cost(np.zeros(0, dtype=int)) == 15
