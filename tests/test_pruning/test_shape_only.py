# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A trace without arithmetic sees what one with arithmetic sees."""

import itertools

import pytest
import torch
from torch import nn

from _utils.nets import Net, randomise, runs
from _utils.tracing_cases import CASES
from mmdet_adasap.errors import NeedsValuesError
from mmdet_adasap.pruning import PrunableChannels, trace_channels, tracing
from mmdet_adasap.pruning.shape_only import product_shape

CONVOLUTION = torch.ops.aten.convolution.default


@pytest.mark.parametrize('transposed', [False, True])
def test_the_shape_of_a_convolution(transposed):
    x = torch.randn(2, 4, 11, 12)
    for case in itertools.product((1, 2, 3), (0, 2), (1, 2), (1, 2)):
        stride, padding, dilation, groups = case
        shape = (4, 6 // groups, 3, 2) if transposed else (6, 4 // groups, 3, 2)
        weight = torch.randn(shape)
        more = [1, 0] if transposed and max(stride, dilation) > 1 else [0, 0]
        args = (x, weight, None, [stride], [padding, 1], [dilation], transposed, more, groups)
        expected = list(CONVOLUTION(*args).shape)
        assert product_shape('aten::convolution', args) == expected, case


def test_the_shape_of_a_product_of_matrices():
    a, b, c = torch.randn(2, 3, 4), torch.randn(2, 4, 5), torch.randn(5)
    aten = torch.ops.aten
    for func, args in (
        (aten.mm.default, (a[0], b[0])),
        (aten.addmm.default, (c, a[0], b[0])),
        (aten.bmm.default, (a, b)),
        (aten.baddbmm.default, (c.expand(2, 3, 5), a, b)),
    ):
        assert product_shape(func._schema.name, args) == list(func(*args).shape)


def counted_forward(shape: tuple) -> tuple:
    x, calls = torch.randn(shape), []

    def forward(model: nn.Module) -> object:
        calls.append(1)
        return model(x)

    return forward, calls


def described(channels: PrunableChannels) -> list:
    return [
        [(m.name, m.axis, m.index.tolist(), m.is_output, m.following_norm) for m in group.members]
        for group in channels.groups
    ]


def never() -> None:
    raise NeedsValuesError


def test_groups_are_those_of_a_run_with_arithmetic(monkeypatch):
    """Over all cases, of which few have to be run with arithmetic."""
    needed = 0
    for name, (make, shape, _) in CASES.items():
        model = randomise(make())
        forward, calls = counted_forward(shape)
        found = trace_channels(model, forward)
        needed += len(calls) > 1
        with monkeypatch.context() as patch:
            patch.setattr(tracing, 'ShapeOnlyExecutor', never)
            expected = trace_channels(model, forward)
        assert described(found) == described(expected), name
        assert found.frozen == expected.frozen, name
        assert found.unused_parameters == expected.unused_parameters, name
        assert found.flops(found.group_sizes) == expected.flops(expected.group_sizes), name
    assert needed < len(CASES) / 10


def two_ways(decide) -> Net:
    """Goes through ``yes`` with the true numbers, and through ``no`` with zeros."""

    def run(net, x):
        y = net.a(x)
        return net.head(net.yes(y) if decide(y) else net.no(y))

    return Net(
        run,
        a=nn.Conv2d(3, 4, 1, bias=False),
        yes=nn.Conv2d(4, 6, 1),
        no=nn.Conv2d(4, 6, 1),
        head=nn.Conv2d(6, 2, 1),
    )


def with_the_error_caught(y: torch.Tensor) -> bool:
    try:
        return bool(y.any())
    except RuntimeError:
        return False


@pytest.mark.parametrize(
    'decide',
    [
        lambda y: y.abs().sum() > 0,
        lambda y: y.any().item(),
        lambda y: y.numpy().any(),
        lambda y: any(y.flatten().tolist()),
        lambda y: y.nonzero().numel(),
        lambda y: y[y != 0].numel(),
        lambda y: not torch.equal(y, torch.zeros_like(y)),
        lambda y: len(y.unique()) > 1,
        with_the_error_caught,
    ],
)
def test_model_that_reads_values_gets_true_ones(decide):
    channels = trace_channels(randomise(two_ways(decide)), runs(torch.randn(2, 3, 5, 5)))
    assert channels.unused_parameters == ['no.weight', 'no.bias']


@pytest.mark.parametrize(
    'decide',
    [
        lambda x, y: bool(x.any()),
        lambda x, y: x.numpy().any(),
        lambda x, y: y.new_ones(3).sum().item(),
        lambda x, y: torch.ones_like(y).nonzero().numel(),
    ],
)
def test_values_without_a_product_may_be_read(decide):
    def run(net, x):
        y = net.a(x)
        return net.head(torch.relu(y) if decide(x, y) else y)

    model = Net(run, a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1))
    forward, calls = counted_forward((2, 3, 8, 8))
    trace_channels(model, forward)
    assert len(calls) == 1


def test_model_that_fails_on_zeros_is_run_again():
    model = Net(
        lambda n, x: n.head(torch.linalg.inv(n.a(x))),  # zeros have no inverse
        a=nn.Conv2d(3, 4, 1, bias=False),
        head=nn.Conv2d(4, 2, 1),
    )
    forward, calls = counted_forward((2, 3, 8, 8))
    assert not trace_channels(randomise(model), forward).unused_parameters
    assert len(calls) == 2


def test_errors_of_the_model_are_raised_as_they_are():
    def run(net, x):
        raise KeyError('of the model')

    with pytest.raises(KeyError, match='of the model') as caught:
        trace_channels(Net(run, a=nn.Conv2d(3, 4, 1)), runs(torch.randn(2, 3, 8, 8)))
    assert caught.value.__context__ is None


def test_the_model_is_left_as_it_was():
    """With what it keeps for itself, and statistics that it counts even in eval mode."""

    def run(net, x):
        y = net.a(x)
        if not hasattr(net, 'first'):
            net.first = y
            net.kept.append(y)
        net.count += 1
        net.sizes['last'] = y.shape
        return net.head(y + net.first)

    model = randomise(Net(run, a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1)))
    model.kept, model.sizes = [], {}
    model.register_buffer('count', torch.zeros(()))
    x = torch.randn(2, 3, 5, 5)
    trace_channels(model, runs(x))
    assert (model.kept, model.sizes, model.count.item()) == ([], {}, 0)
    assert not hasattr(model, 'first')
    y = model.a(x)
    torch.testing.assert_close(model(x), model.head(y + y))


@pytest.mark.parametrize('ones', [lambda x: torch.ones(1, 5), lambda x: x.new_ones(1, 5)])
def test_constants_are_computed(ones):
    """Functions keep them for other models."""
    kept = {}

    def run(net, x):
        if 'table' not in kept:
            kept['table'] = torch.arange(5.0)[:, None] @ ones(x)
        return net.head(net.a(x) + kept['table'])

    model = Net(run, a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1))
    trace_channels(model, runs(torch.randn(2, 3, 5, 5)))
    assert kept['table'].sum() == 50


def test_too_small_image_raises_the_own_error():
    model = Net(lambda n, x: n.head(n.a(x)), a=nn.Conv2d(3, 4, 3), head=nn.Conv2d(4, 2, 9))
    with pytest.raises(RuntimeError, match='Kernel size'):
        trace_channels(model, runs(torch.randn(2, 3, 5, 5)))
    with pytest.raises(RuntimeError, match='to have 3 channels'):
        trace_channels(model, runs(torch.randn(2, 4, 20, 20)))


def test_strides_are_the_true_ones():
    def run(net, x):
        y = net.a(x)
        return net.head(net.b(y) if y.is_contiguous() else y)

    model = Net(run, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), head=nn.Conv2d(4, 2, 1))
    last = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    assert trace_channels(model, runs(last)).unused_parameters == ['b.weight', 'b.bias']


def test_sparse_tensors_are_left_whole():
    def run(net, x):
        pairs = torch.eye(16).to_sparse()
        return net.head(torch.sparse.mm(pairs, net.a(x)) + net.a(x))

    model = Net(run, a=nn.Linear(3, 4), head=nn.Linear(4, 2))
    assert not trace_channels(model, runs(torch.randn(16, 3))).groups
