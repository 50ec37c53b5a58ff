# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import itertools
import math

import numpy as np
import pytest
import torch
from torch import library as torch_library
from torch import nn

from _utils.nets import Net, chain, random_choice, randomise, runs, trace
from mmdet_adasap.errors import EquivalenceError
from mmdet_adasap.pruning import indices_from_masks, verify_cut
from mmdet_adasap.pruning.analysis import find_channels
from mmdet_adasap.pruning.equivalence import difference


@pytest.mark.parametrize(
    ('slim', 'masked', 'expected'),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([math.nan], [math.nan], math.inf),
        ([math.inf, 2.0], [1.0, 2.0], math.inf),
        ([-math.inf, 1.0], [-math.inf, 2.0], 0.5),
        ([-math.inf, 2.0], [-math.inf, 2.0], 0),
        ([math.inf], [-math.inf], math.inf),
        ([True, False], [True, False], 0),
        ([True, True], [True, False], 1),
        ([3, 4], [3, 5], 0.2),
        ([], [], 0),
    ],
)
def test_difference(slim, masked, expected):
    first = torch.tensor([0.25])
    for before, after in (([], []), ([first], []), ([], [first])):
        a, b = ([*before, torch.tensor(v), *after] for v in (slim, masked))
        # Where all else is 0, the output of 1/4 is the largest.
        against = expected * 4 if masked == [0.0, 0.0] and len(a) > 1 else expected
        assert difference(a, b) == pytest.approx(against)


def test_difference_of_shapes():
    assert difference([torch.zeros(2)], [torch.zeros(1)]) == math.inf
    assert difference([torch.zeros(2)], [torch.zeros(2), torch.zeros(1)]) == math.inf


def test_a_wrong_index_is_found_and_named():
    model, x = chain(), torch.randn(2, 3, 8, 8)
    channels = trace(model, x)
    keep = indices_from_masks(
        model, channels.groups, [np.arange(g.size) < 5 for g in channels.groups]
    )
    assert verify_cut(model, keep, runs(x)) < 1e-5
    keep['conv3.weight'][1] = [0, 1, 2, 3, 5]
    with pytest.raises(EquivalenceError, match='of what head returns;'):
        verify_cut(model, keep, runs(x))


def test_a_missing_axis_is_found_and_named():
    model, x = chain(), torch.randn(2, 3, 8, 8)
    channels = trace(model, x)
    keep = indices_from_masks(model, channels.groups, random_choice(channels, 0.5))
    del keep['bn2.weight']
    with pytest.raises(EquivalenceError, match=r'does not run; it stops in bn2'):
        verify_cut(model, keep, runs(x))


def test_the_model_stays_as_it_is():
    model, x = chain().train(), torch.randn(2, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    channels = trace(model, x)
    verify_cut(
        model, indices_from_masks(model, channels.groups, random_choice(channels, 0.5)), runs(x)
    )
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert model.training
    assert model.conv1.out_channels == 8


def test_a_model_that_gives_nan_is_refused():
    model = Net(
        lambda n, x: n.head(n.a(x) * math.nan), a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1)
    )
    x = torch.randn(1, 3, 4, 4)
    channels = trace(model, x)
    with pytest.raises(EquivalenceError):
        verify_cut(model, indices_from_masks(model, channels.groups, [np.arange(4) < 2]), runs(x))


def test_rounding_is_no_difference():
    """float32 rounds to steps of 1/128 near 1e5; the cut itself is right."""
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.head(n.a(x)) + 1e5 - 1e5, a=nn.Conv2d(3, 64, 3), head=nn.Conv2d(64, 32, 3)
    )
    x = torch.randn(2, 3, 16, 16)
    channels = trace(model, x)
    keep = indices_from_masks(model, channels.groups, [np.arange(64) % 3 > 0])
    assert verify_cut(model, keep, runs(x)) < 1e-9


def test_rounding_that_turns_the_order_of_scores_is_no_difference():
    """Scores 3e-5 apart from one run to the other, of a model that float64 stops (mmcv's NMS)."""

    def run(net, x):
        if x.dtype != torch.float32:
            raise RuntimeError('expected scalar type Float but found Double')
        scores = net.head(net.a(x)).flatten() + 400 - 400
        return x.flatten()[scores.argsort()]

    torch.manual_seed(0)
    model = Net(run, a=nn.Conv2d(1, 64, 3, padding=1), head=nn.Conv2d(64, 1, 3, padding=1))
    x = torch.randn(1, 1, 256, 256)
    channels = trace(model, x)
    keep = indices_from_masks(model, channels.groups, [np.arange(64) % 3 > 0])
    assert verify_cut(model, keep, runs(x)) == 0


class Scaled(nn.Module):
    """Attention that is scaled by the number of channels, over values that are nearly equal."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        weights = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(-1)
        return 100 + 1e-3 * weights @ x.flatten(2).transpose(1, 2)


def test_inner_error_that_outputs_hardly_show():
    torch.manual_seed(0)
    model = Net(lambda n, x: n.head(n.mix(x)), mix=Scaled(), head=nn.Linear(3, 2))
    x = torch.randn(2, 3, 6, 6)
    channels = trace(model, x)
    assert channels.group_sizes.tolist() == [8]
    keep = indices_from_masks(model, channels.groups, [np.arange(8) < 4])
    with pytest.raises(EquivalenceError, match=r'by [\d.]+e-\d+ of what mix returns;'):
        verify_cut(model, keep, runs(x))
    assert not find_channels(model, runs(x)).groups


def test_uninitialised_memory_is_not_compared():
    """Circular padding copies into a tensor that it makes."""
    model = Net(
        lambda n, x: n.head(n.b(n.a(x))),
        a=nn.Conv2d(3, 8, 1),
        b=nn.Conv2d(8, 8, 3, padding=1, padding_mode='circular'),
        head=nn.Conv2d(8, 2, 1),
    )
    x = torch.randn(1, 3, 6, 6)
    for _ in range(5):
        garbage = [torch.full((1, 8, 8, 8), float(i)) for i in range(20)]
        del garbage
        assert not find_channels(randomise(model), runs(x)).excluded


class Attending(nn.Module):
    """Attention of four heads that is scaled by ``scale``, or by the width of a head."""

    def __init__(self, scale=None) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(3, 16) for _ in range(3))
        self.num_heads, self.scale = 4, scale

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        q, k, v = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        scale = self.scale and self.scale(self)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)
        return mixed.transpose(1, 2).flatten(2)


def fill_freed_memory(*shapes):
    """Leave NaN in memory that the next tensors of such shapes are given."""
    garbage = [torch.full(shape, math.nan) for shape in shapes for _ in range(20)]
    del garbage


@pytest.fixture(scope='module')
def doubled():
    """An operator with a second result, of which each entry is the number that it is given."""
    library = torch_library.Library('test_equivalence', 'DEF')
    library.define('doubled(Tensor x, float number) -> (Tensor, Tensor)')
    library.impl('doubled', lambda x, number: (2 * x, torch.full_like(x, number)), 'CPU')
    yield torch.ops.test_equivalence.doubled
    del library


def test_a_second_result_that_nothing_reads_is_not_compared(doubled):
    """As the one of attention in PyTorch 2.1, which is memory that nothing was written to."""
    numbers = itertools.count()

    def run(net, x):
        result, _ = doubled(net.a(x), next(numbers))
        return net.head(result)

    model = Net(run, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    # Nothing is cut, so that all results have the same shape in both runs.
    assert verify_cut(model, {'head.weight': {0: [0, 1]}}, runs(torch.randn(2, 3, 6, 6))) == 0


def test_a_second_result_that_is_read_is_compared(doubled):
    """Python reads the number of channels, and the sum with 1e9 hardly shows it."""

    def run(net, x):
        _, number = doubled(x[:, :2], net.a.weight.shape[0])
        return net.head(net.a(x)) + (1e9 + number)

    model = Net(run, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    x = torch.randn(2, 3, 6, 6)
    keep = indices_from_masks(model, trace(model, x).groups, [np.arange(8) < 4])
    with pytest.raises(EquivalenceError, match=r'by 5\.0e-01 of what the model itself returns'):
        verify_cut(model, keep, runs(x))


def test_attention_is_compared_by_what_it_returns_for_the_next_layer():
    torch.manual_seed(0)
    model = Net(lambda n, x: n.head(n.mix(x)), mix=Attending(), head=nn.Linear(16, 2))
    x = torch.randn(2, 3, 6, 6)
    for _ in range(5):
        fill_freed_memory((2, 4, 36), (2, 36, 4), (2, 2, 36), (2, 36, 2))
        found = find_channels(randomise(model), runs(x))
        assert not found.excluded
        assert sorted(found.group_sizes.tolist()) == [4]


def test_a_wrong_scale_of_attention_is_found():
    torch.manual_seed(0)
    mix = Attending(lambda attention: attention.q.weight.shape[0] ** -0.5)
    model = Net(lambda n, x: n.head(n.mix(x)), mix=mix, head=nn.Linear(16, 2))
    found = find_channels(randomise(model), runs(torch.randn(2, 3, 6, 6)))
    assert list(found.excluded) == ['mix.q']
    assert not found.groups


def test_a_decision_by_other_settings_is_not_taken_over():
    """The second run picks fewer from the same scores, which Python reads from a weight."""

    def run(net, x):
        scores = x.flatten(1)
        return net.head(net.a(x)).mean() + scores.topk(net.a.weight.shape[0]).values.sum(1)

    model = Net(run, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    x = torch.rand(2, 3, 6, 6)
    keep = indices_from_masks(model, trace(model, x).groups, [np.arange(8) < 4])
    with pytest.raises(EquivalenceError):
        verify_cut(model, keep, runs(x))


def test_nothing_hides_behind_weights_of_zero():
    model = Net(
        lambda n, x: n.head(n.zero(n.a(x) / n.a(x).shape[1])),
        a=nn.Conv2d(3, 8, 1),
        zero=nn.Conv2d(8, 4, 1),
        head=nn.Conv2d(4, 2, 1),
    )
    nn.init.zeros_(model.zero.weight)
    x = torch.randn(1, 3, 6, 6)
    assert 'a' not in {group.name for group in find_channels(model, runs(x)).groups}


def test_state_of_a_first_run_serves_no_other():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(1, 4, 1)
            self.scale = None

        def forward(self, x):
            h = self.a(x)
            if self.scale is None:
                self.scale = 1 / h.shape[1]
            return self.c(h.sum(1, keepdim=True) * self.scale)

    assert not find_channels(Scaled(), runs(torch.rand(2, 3, 8, 8))).groups


@pytest.mark.parametrize(
    'flag',
    [
        lambda h: h.relu() == 0,
        lambda h: h > 2000,
        lambda h: h.logical_not(),
        lambda h: h.exp().isinf(),
        lambda h: nn.functional.hardshrink(h, 2000.0) != 0,
        lambda h: h == 3.5,
    ],
)
def test_what_may_be_anything_is_not_taken_for_zero(flag):
    """The shift of a masked channel by the image is seen in no run on a usual one."""

    def run(net, x):
        flags = flag(net.a(x) + x.mean()).float()
        return net.head(flags.sum(1, keepdim=True))

    model = Net(run, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(1, 2, 1))
    assert not trace(model, torch.rand(2, 3, 6, 6)).groups


def test_masked_channel_may_equal_its_threshold():
    def run(net, x):
        same = (net.a(x) == x.mean()).float()
        return net.head(same.sum(1, keepdim=True))

    model = Net(run, a=nn.Conv2d(3, 8, 1), head=nn.Conv2d(1, 2, 1))
    assert not trace(model, torch.rand(2, 3, 6, 6)).groups


def test_an_autocast_around_it_is_off():
    """A product of bfloat16 would hide a wrong cut, or refuse a right one."""
    model, x = chain(), torch.randn(2, 3, 8, 8)
    expected = find_channels(model, runs(x))
    dtypes = set()
    model.head.register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = find_channels(model, runs(x))
        keep = indices_from_masks(model, found.groups, random_choice(found, 0.5))
        assert verify_cut(model, keep, runs(x)) < 1e-5
        assert dtypes == {torch.float32}
        assert model(x).dtype == torch.bfloat16  # and it is on again
    assert not found.excluded
    assert [group.name for group in found.groups] == [group.name for group in expected.groups]
