# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Operations on each entry are followed alike in every release of PyTorch and in every form."""

import pytest
import torch
from torch.nn import functional as F

from _utils.nets import assert_cuts, randomise, trace
from _utils.tracing_cases import IMAGE, first_and_head
from mmdet_adasap.pruning.rules import is_pointwise

aten = torch.ops.aten
CHANGES = {
    'elu': F.elu,
    'celu': F.celu,
    'selu': F.selu,
    'silu': F.silu,
    'mish': F.mish,
    'gelu': F.gelu,
    'rrelu': F.rrelu,
    'relu6': F.relu6,
    'softplus': F.softplus,
    'hardtanh': F.hardtanh,
    'hardswish': F.hardswish,
    'hardsigmoid': F.hardsigmoid,
    'hardshrink': F.hardshrink,
    'softshrink': F.softshrink,
    'threshold': lambda x: F.threshold(x, 0.1, 0.0),
    'leaky_relu': F.leaky_relu,
    'logsigmoid': F.logsigmoid,
    'isinf': lambda x: torch.isinf(x).float() + x,
    'ldexp': lambda x: torch.ldexp(x, torch.tensor(2)),
    'rad2deg': torch.rad2deg,
    'lerp': lambda x: torch.lerp(x, 2 * x, 0.3),
    'clamp to a tensor': lambda x: x.clamp(min=torch.tensor(0.0)),
    'where': lambda x: torch.where(x > 0, x, 0.1 * x),
    'rsub of tensors': lambda x: torch.rsub(x, 2 * x),
    'masked_fill by a tensor': lambda x: x.masked_fill(x > 1, torch.tensor(1.0)),
    'elu_': lambda x: F.elu(x, inplace=True),
    'celu_': lambda x: F.celu(x, inplace=True),
    'selu_': lambda x: F.selu(x, inplace=True),
    'silu_': lambda x: F.silu(x, inplace=True),
    'mish_': lambda x: F.mish(x, inplace=True),
    'rrelu_': lambda x: F.rrelu(x, inplace=True),
    'relu6_': lambda x: F.relu6(x, inplace=True),
    'hardtanh_': lambda x: F.hardtanh(x, inplace=True),
    'hardswish_': lambda x: F.hardswish(x, inplace=True),
    'hardsigmoid_': lambda x: F.hardsigmoid(x, inplace=True),
    'threshold_': lambda x: F.threshold(x, 0.1, 0.0, inplace=True),
    'abs_': lambda x: x.abs_(),
    'gt_': lambda x: x + (2 * x).gt_(0.5),
    'copysign_': lambda x: x.abs().copysign_(x),
    'relu.out': lambda x: aten.relu.out(x, out=torch.empty_like(x)),
    'silu.out': lambda x: aten.silu.out(x, out=torch.empty_like(x)),
    'mish.out': lambda x: aten.mish.out(x, out=torch.empty_like(x)),
    'gelu.out': lambda x: aten.gelu.out(x, out=torch.empty_like(x)),
}

UNTAGGED_IN_2_1 = {
    *('celu', 'elu', 'selu', 'silu', 'silu_', 'mish', 'relu6', 'rrelu', 'softplus', 'threshold'),
    *('hardshrink', 'hardsigmoid', 'hardtanh', 'softshrink'),
    *('isfinite', 'isinf', 'rad2deg', 'rad2deg_'),
}


@pytest.fixture(params=['tags as installed', 'tags of PyTorch 2.1'])
def _tags(request, monkeypatch):
    is_pointwise.cache_clear()
    tags = torch._ops.OpOverload.tags

    def tags_of_2_1(overload):
        kept = list(tags.fget(overload))
        if overload._schema.name.removeprefix('aten::') in UNTAGGED_IN_2_1:
            kept = [tag for tag in kept if tag != torch.Tag.pointwise]
        return kept

    if request.param == 'tags of PyTorch 2.1':
        monkeypatch.setattr(torch._ops.OpOverload, 'tags', property(tags_of_2_1))
    yield
    is_pointwise.cache_clear()


@pytest.mark.usefixtures('_tags')
@pytest.mark.parametrize('name', CHANGES)
def test_channels_pass_through(name):
    torch.manual_seed(0)
    model = randomise(first_and_head(lambda n, x: CHANGES[name](x)))
    channels = trace(model, torch.randn(IMAGE))
    assert channels.group_sizes.tolist() == [8]
    assert_cuts(model, torch.randn(IMAGE), channels)


@pytest.mark.usefixtures('_tags')
@pytest.mark.parametrize(
    ('change', 'passes'),
    [
        (F.mish, True),
        (lambda x: F.mish(x, inplace=True), True),
        (lambda x: F.softplus(x), False),
        (F.logsigmoid, False),
        (lambda x: x.eq_(0), False),
    ],
)
def test_a_sum_over_channels_asks_whether_zero_stays_zero(change, passes):
    model = first_and_head(lambda n, x: x * change(1 * x).sum(1, keepdim=True))
    channels = trace(randomise(model), torch.randn(IMAGE))
    assert channels.group_sizes.tolist() == ([8] if passes else [])


@pytest.mark.parametrize(
    'change',
    [
        lambda x: torch.equal(x, x) * x.cumprod(1),
        lambda x: F.glu(x, 1).repeat(1, 2, 1, 1),
        lambda x: aten.log_sigmoid_forward.output(
            x, output=torch.zeros(2, 16, 6, 6)[:, :8], buffer=torch.empty(0)
        )[0],
    ],
)
def test_what_is_not_pointwise_freezes(change):
    model = first_and_head(lambda n, x: change(x))
    assert not trace(randomise(model), torch.randn(IMAGE)).groups


def test_names_that_also_reduce():
    aten = torch.ops.aten
    assert all(map(is_pointwise, (aten.max.other, aten.min.other, aten.where.self)))
    assert is_pointwise(aten.where.ScalarOther)
    reducing = (aten.max.default, aten.max.dim, aten.min.default, aten.min.dim, aten.where.default)
    assert not any(map(is_pointwise, reducing))
