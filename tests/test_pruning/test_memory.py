# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Operations that change shape, strides or memory of a tensor in place."""

import pytest
import torch
from torch import Tensor

from _utils.nets import Net, assert_cuts, randomise, runs, trace
from _utils.tracing_cases import IMAGE, first_and_head
from mmdet_adasap.pruning.analysis import find_channels


def rows(x: Tensor) -> Tensor:
    """``[N, C, H, 1]``."""
    return x.mean(3, keepdim=True)


def transposed(x: Tensor, change: str, *axes: int) -> Tensor:
    """Channels and rows change places, and back in other memory."""
    y = 2 * x
    getattr(y, change)(*axes)
    return y.relu().contiguous().transpose(*axes)


def matrix(x: Tensor) -> Tensor:
    y = 2 * x.mean((2, 3))
    y.t_()
    return y.relu().t().contiguous()[..., None, None]


def strided(x: Tensor) -> Tensor:
    y = 2 * x
    n, c, h, w = y.stride()
    shape = x.shape
    y.as_strided_((shape[1], shape[0], *shape[2:], 1), (c, n, h, w, 1))
    return y.squeeze_(-1).transpose_(0, 1)


def resized(x: Tensor) -> Tensor:
    y = 2 * x
    y.resize_(len(x), x.shape[1], x.shape[2] * x.shape[3])
    return y.relu().unflatten(2, x.shape[2:])


def resized_as(x: Tensor) -> Tensor:
    return (2 * x).flatten(2).resize_as_(x)


def new_by_resize(x: Tensor) -> Tensor:
    return torch.empty(0).resize_as_(x).copy_(x)


def taken_over(x: Tensor) -> Tensor:
    y = torch.empty(0)
    return y.set_(x * 2)


def taken_over_memory(x: Tensor) -> Tensor:
    z = x * 2
    return torch.empty(0).set_(z.untyped_storage(), 0, z.shape, z.stride())


def given_data(x: Tensor) -> Tensor:
    y = torch.ones(3)
    y.data = x * 2
    y.data.unsqueeze_(0)  # of another object
    return y


FOLLOWED = {
    'squeeze_': lambda x: rows(x).squeeze_(3)[..., None],
    'squeeze_ of several': lambda x: rows(x)[None].squeeze_((0, -1))[..., None] + x,
    'squeeze_ of no axis': lambda x: (2 * x).squeeze_(0),
    'squeeze_ of a view': lambda x: x.unsqueeze(0).relu_().squeeze_(0) + x,
    'unsqueeze_': lambda x: (2 * x).unsqueeze_(1).flatten(1, 2),
    'transpose_': lambda x: transposed(x, 'transpose_', 1, 2),
    'transpose_ from the end': lambda x: transposed(x, 'transpose_', -3, -1),
    'swapaxes_': lambda x: transposed(x, 'swapaxes_', 1, 3),
    'swapdims_': lambda x: transposed(x, 'swapdims_', 1, 2),
    't_': matrix,
    'detach_': lambda x: (2 * x).detach_(),
    'as_strided_': strided,
    'as_strided': lambda x: x.as_strided(x.shape, x.stride()) * 2,
    'resize_': resized,
    'resize_as_': resized_as,
    'resize_ of a new one': new_by_resize,
    'set_': taken_over,
    'set_ of memory': taken_over_memory,
    'data': given_data,
}


@pytest.mark.parametrize('name', FOLLOWED)
def test_followed(name):
    torch.manual_seed(0)
    change = FOLLOWED[name]
    model, x = randomise(first_and_head(lambda n, x: change(x))), torch.randn(IMAGE)
    assert trace(model, x).group_sizes.tolist() == [8]
    lines = []
    channels = find_channels(model, runs(x), lines.append)
    assert not lines
    assert channels.group_sizes.tolist() == [8]
    assert_cuts(model, x, channels)


def beyond(x: Tensor) -> Tensor:
    """The first half of the entries, and through another view still all of them."""
    y = x * 2
    other = y.view(-1)
    y.resize_(len(x), x.shape[1] // 2, *x.shape[2:])
    return y + other.view_as(x)[:, : x.shape[1] // 2]


def grown(x: Tensor) -> Tensor:
    """What is moved to other memory is still known through another view."""
    y = x * 2
    other = y.view(-1)
    y.resize_(len(x) + 1, *x.shape[1:])[-1:].zero_()
    return other.view_as(x) + y[:-1]


def windows(x: Tensor) -> Tensor:
    n, c, h, w = x.stride()
    shape = len(x), x.shape[1] - 1, 2, *x.shape[2:]
    return x.contiguous().as_strided_(shape, (n, c, c, h, w)).sum(2)


def other_view_of_memory(x: Tensor) -> Tensor:
    z = x * 2
    y = torch.empty(0).set_(z.untyped_storage(), 0, (z.numel(),))
    return y.view(len(x), -1, *x.shape[2:])


FROZEN = {
    'squeeze_ without an axis': (
        lambda x: rows(x).squeeze_()[..., None],
        8,
        'squeeze() without an',
    ),
    'resize_ to fewer': (beyond, 4, 'resize_ to another number'),
    'resize_ to more': (grown, 8, 'resize_ to another number'),
    'resize_ out of order': (
        lambda x: (x.transpose(1, 2) * 2).resize_(x.shape),
        8,
        'resize_ to another number or order',
    ),
    'as_strided_': (windows, 7, 'as_strided'),
    'set_': (other_view_of_memory, 8, 'set_ to another view'),
}


@pytest.mark.parametrize('name', FROZEN)
def test_freezes_only_what_reaches_it(name):
    torch.manual_seed(0)
    change, channels_out, reason = FROZEN[name]

    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(change(net.first(net.before(x)))) + net.beside(x)

    model = Net(
        run,
        before=torch.nn.Conv2d(3, 6, 1),
        first=torch.nn.Conv2d(6, 8, 1),
        head=torch.nn.Conv2d(channels_out, 2, 1),
        beside=torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), torch.nn.Conv2d(5, 2, 1)),
    )
    model, x = randomise(model), torch.randn(IMAGE)
    lines = []
    channels = find_channels(model, runs(x), lines.append)
    assert not lines
    assert sorted(channels.group_sizes.tolist()) == [5, 6]
    assert any(why.startswith(reason) for why in channels.frozen)
    assert_cuts(model, x, channels)


def test_every_operation_of_pytorch_is_in_a_case():
    changing = {
        name.removeprefix('aten::').partition('.')[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith('aten::') and torch.Tag.inplace_view in _overload(name).tags
    }
    tested = {name.partition(' ')[0] for name in (*FOLLOWED, *FROZEN)}
    # Names of axes are not dispatched, and have no part in shape, strides and memory.
    assert changing - {'rename_'} <= tested


def _overload(name: str) -> object:
    operator, _, overload = name.removeprefix('aten::').partition('.')
    return getattr(getattr(torch.ops.aten, operator), overload or 'default')


@pytest.mark.parametrize('change', [lambda x: x.resize_(x.shape), lambda x: x.resize_as_(x)])
def test_what_a_resized_tensor_holds_is_compared(change):
    """Python reads the number of channels behind it, so that the cut is wrong."""
    torch.manual_seed(0)

    def run(net: Net, x: Tensor) -> Tensor:
        return net.head(change(net.first(x)) / x.shape[0] / net.first.weight.shape[0])

    model = Net(run, first=torch.nn.Conv2d(3, 8, 1), head=torch.nn.Conv2d(8, 2, 1))
    channels = find_channels(randomise(model), runs(torch.randn(IMAGE)))
    assert list(channels.excluded) == ['first']
    assert not channels.groups
