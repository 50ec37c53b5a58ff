# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d
from torch.nn import functional as F

from _utils.nets import Net, assert_cuts, chain, randomise, runs, trace
from _utils.tracing_cases import CASES, IMAGE, first_and_head
from mmdet_adasap.errors import EquivalenceError
from mmdet_adasap.pruning import indices_from_masks, trace_channels, verify_cut
from mmdet_adasap.pruning.analysis import find_channels
from mmdet_adasap.pruning.rules import EXTENSION_RULES, RULES


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
    assert sorted(channels.group_sizes.tolist()) == sizes
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


# In which of them operations are not understood, and which layer is left whole for it.
LEFT_WHOLE = {
    'generated weight': 'a',
    'fixed split': 'first',
    'nan per channel': 'first',
    'standardised without eps': 'first',
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
        assert lines[0].startswith(f'{LEFT_WHOLE[name]} left whole: the cut mod')
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
    assert sorted(channels.group_sizes.tolist()) == sizes
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
    assert channels.unused_parameters == ['spare.weight', 'spare.bias']
    assert {m.name for g in channels.groups for m in g.members} == {
        'first.weight',
        'first.bias',
        'head.weight',
    }


def test_untrained_weights_are_left():
    model = chain()
    model.conv3.weight.requires_grad_(False)
    channels = trace(model, torch.randn(IMAGE))
    assert sorted(channels.group_sizes.tolist()) == [8, 10]
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
    assert trace(model, torch.randn(IMAGE)).group_sizes.tolist() == [8]
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
    assert trace(model, torch.randn(IMAGE)).group_sizes.tolist() == [8]
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


def test_random_numbers_of_the_model_repeat():
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
