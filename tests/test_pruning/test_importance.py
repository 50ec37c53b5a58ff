# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from _utils.nets import Net, chain, randomise, trace
from mmdet_adasap.pruning import ChannelGroup, MagnitudeImportance, Member, TaylorImportance


def two_makers() -> tuple[ChannelGroup, dict]:
    """Channel i is row i of ``a.weight`` and columns i of ``b.weight`` (transposed)."""
    index = np.arange(3)[:, None]
    group = ChannelGroup(
        0,
        [
            Member('a.weight', 0, index, True),
            Member('a.bias', 0, index, False),
            Member('b.weight', 1, index, True),
            Member('c.weight', 1, index, False),
        ],
        3,
    )
    tensors = {
        'a.weight': torch.tensor([[3.0, -4.0], [0.0, 1.0], [6.0, 8.0]]).reshape(3, 2, 1, 1),
        'a.bias': torch.full((3,), 100.0),
        'b.weight': torch.tensor([[1.0, 0.0, 5.0], [1.0, -2.0, 12.0]]).reshape(2, 3, 1, 1),
        'c.weight': torch.full((2, 3, 1, 1), 100.0),
    }
    return group, tensors


ALL = torch.ones(3, dtype=torch.bool)


class TestMagnitude:
    @pytest.mark.parametrize(
        ('p', 'first', 'second'),
        [(1, [7, 1, 14], [2, 2, 17]), (2, [5, 1, 10], [2**0.5, 2, 13])],
    )
    def test_norms_of_the_weights_that_make_a_channel(self, p, first, second):
        group, tensors = two_makers()
        plain = MagnitudeImportance(p=p, normalize=False).scores(group, tensors, ALL)
        expected = (torch.tensor(first) + torch.tensor(second)) / 2
        torch.testing.assert_close(plain, expected.float())
        divided = MagnitudeImportance(p=p).scores(group, tensors, ALL)
        a, b = (torch.tensor(v, dtype=torch.float32) for v in (first, second))
        torch.testing.assert_close(divided, (a / a.mean() + b / b.mean()) / 2)

    def test_masked_channels_are_left_out_of_the_mean(self):
        group, tensors = two_makers()
        kept = torch.tensor([True, True, False])
        scores = MagnitudeImportance(p=1).scores(group, tensors, kept)
        expected = (torch.tensor([7.0, 1, 14]) / 4 + torch.tensor([2.0, 2, 17]) / 2) / 2
        torch.testing.assert_close(scores, expected)

    def test_several_indices_make_one_channel(self):
        group = ChannelGroup(0, [Member('w', 0, np.array([[0, 2], [1, 3]]), True)], 2)
        tensors = {'w': torch.tensor([[3.0], [5.0], [4.0], [12.0]])}
        scores = MagnitudeImportance(normalize=False).scores(group, tensors, ALL[:2])
        torch.testing.assert_close(scores, torch.tensor([5.0, 13.0]))

    def test_a_layer_of_zeros_scores_zero(self):
        group, tensors = two_makers()
        zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        assert MagnitudeImportance().scores(group, zeros, ALL).tolist() == [0, 0, 0]

    @pytest.mark.parametrize('p', [0, -1, float('nan'), float('inf'), True, '2', None])
    def test_bad_order(self, p):
        with pytest.raises(ValueError, match='p='):
            MagnitudeImportance(p=p)

    def test_bad_normalize(self):
        with pytest.raises(ValueError, match="normalize='yes'"):
            MagnitudeImportance(normalize='yes')


def backward(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model.zero_grad()
    model(torch.randn(2, 3, 8, 8, generator=generator)).square().sum().backward()


BRANCHES = {
    'frozen norm': (
        lambda n, x: n.head(F.relu(n.bn(scaled(n, n.a(x))))),
        dict(bn=nn.BatchNorm2d(4)),
    ),
    'scale on another branch': (
        lambda n, x: branches(n, scaled(n, n.a(x))),
        dict(scale=nn.Parameter(torch.rand(4)), other=nn.Conv2d(4, 2, 1)),
    ),
    'slope of a PReLU': (
        lambda n, x: n.head(n.act(scaled(n, n.a(x)))),
        dict(act=nn.PReLU(4)),
    ),
    'norm on one of two makers': (
        lambda n, x: n.head(F.relu(scaled(n, n.bn(n.a(x)) + n.b(x)))),
        dict(bn=nn.BatchNorm2d(4), b=nn.Conv2d(3, 4, 3)),
    ),
    'norm on a branch only': (
        lambda n, x: after_a_sum(n, scaled(n, n.a(x) + n.b(x))),
        dict(bn=nn.BatchNorm2d(4), b=nn.Conv2d(3, 4, 3), other=nn.Conv2d(4, 2, 1)),
    ),
}


def scaled(net: Net, y: torch.Tensor) -> torch.Tensor:
    return y if net.factor is None else y * net.factor


def branches(net: Net, y: torch.Tensor) -> torch.Tensor:
    """SSD's L2Norm: a scale for each channel on one of the ways that it goes."""
    return net.head(F.relu(y)) + net.other(y * net.scale[:, None, None])


def after_a_sum(net: Net, y: torch.Tensor) -> torch.Tensor:
    return net.head(F.relu(net.bn(y))) + net.other(y)


class TestTaylor:
    def test_effects_of_norms_are_averaged(self):
        model = chain().train()
        groups = trace(model, torch.randn(1, 3, 8, 8)).groups
        criterion = TaylorImportance()
        sums = [0, 0, 0]
        for seed in range(3):
            backward(model, seed)
            criterion.observe(groups, dict(model.named_parameters()))
            norms = [model.bn1, model.bn2]
            residual = sum(n.weight * n.weight.grad + n.bias * n.bias.grad for n in norms)
            conv, fc = model.conv3, model.fc
            by_weight = (conv.weight * conv.weight.grad).sum((1, 2, 3))
            by_weight += conv.bias * conv.bias.grad
            linear = (fc.weight * fc.weight.grad).sum(1) + fc.bias * fc.bias.grad
            for i, effect in enumerate((residual, by_weight, linear)):
                sums[i] = sums[i] + effect.detach().abs()
        for group, total in zip(groups, sums, strict=True):
            scores = criterion.scores(group, {}, torch.ones(group.size, dtype=torch.bool))
            torch.testing.assert_close(scores, total / 3)

    def test_predicts_the_change_of_the_loss(self):
        """A channel that is shrunk by a little changes the loss by that much of its score."""
        torch.manual_seed(0)
        model = randomise(
            Net(
                lambda n, x: n.head(torch.relu(n.bn(n.a(x)))),
                a=nn.Conv2d(3, 4, 3),
                bn=nn.BatchNorm2d(4),
                head=nn.Conv2d(4, 2, 1),
            )
        ).double()
        x = torch.randn(2, 3, 6, 6, dtype=torch.double)
        (group,) = trace(model, x).groups
        loss = model(x).square().sum()
        loss.backward()
        criterion = TaylorImportance()
        criterion.observe([group], dict(model.named_parameters()))
        scores = criterion.scores(group, {}, torch.ones(4, dtype=torch.bool))
        for i in range(4):
            with torch.no_grad():
                before = model.bn.weight.clone(), model.bn.bias.clone()
                model.bn.weight[i] *= 1 - 1e-6
                model.bn.bias[i] *= 1 - 1e-6
                change = (model(x).square().sum() - loss).abs() / 1e-6
                model.bn.weight.copy_(before[0])
                model.bn.bias.copy_(before[1])
            assert change.item() == pytest.approx(scores[i].item(), rel=1e-3)

    @pytest.mark.parametrize('name', BRANCHES)
    def test_equals_derivative_by_a_channel_factor(self, name):
        """Whatever stands beside the layer that makes a channel, its effect is the sum of g y."""
        torch.manual_seed(0)
        run, layers = BRANCHES[name]
        model = Net(run, a=nn.Conv2d(3, 4, 3), head=nn.Conv2d(4, 2, 1), **layers)
        randomise(model)
        model.factor = None
        if name == 'frozen norm':
            model.bn.requires_grad_(False).eval()
        x = torch.randn(2, 3, 6, 6)
        (group,) = trace(model, x).groups
        model.factor = torch.ones(4, 1, 1, requires_grad=True)
        model(x).square().sum().backward()
        criterion = TaylorImportance()
        criterion.observe([group], dict(model.named_parameters()))
        scores = criterion.scores(group, {}, torch.ones(4, dtype=torch.bool))
        torch.testing.assert_close(scores, model.factor.grad.flatten().abs(), rtol=1e-3, atol=1e-3)

    def test_one_broken_batch_does_not_decide(self):
        model = chain()
        groups = trace(model, torch.randn(1, 3, 8, 8)).groups
        criterion, clean = TaylorImportance(), TaylorImportance()
        backward(model, 0)
        for each in (criterion, clean):
            each.observe(groups, dict(model.named_parameters()))
        for parameter in model.parameters():
            parameter.grad.fill_(float('nan'))
        criterion.observe(groups, dict(model.named_parameters()))
        kept = torch.ones(8, dtype=torch.bool)
        assert torch.equal(
            criterion.scores(groups[0], {}, kept), clean.scores(groups[0], {}, kept) / 2
        )

    def test_an_interval_starts_from_nothing(self):
        model = chain()
        groups = trace(model, torch.randn(1, 3, 8, 8)).groups
        criterion = TaylorImportance()
        kept = torch.ones(8, dtype=torch.bool)
        with pytest.raises(RuntimeError, match=r'observe\(\)'):
            criterion.scores(groups[0], {}, kept)
        for seed in (0, 1):
            criterion.start_interval()
            backward(model, seed)
            criterion.observe(groups, dict(model.named_parameters()))
        again = TaylorImportance()
        again.observe(groups, dict(model.named_parameters()))
        assert torch.equal(
            criterion.scores(groups[0], {}, kept), again.scores(groups[0], {}, kept)
        )

    def test_state_goes_on_where_it_was(self, tmp_path):
        model = chain()
        groups = trace(model, torch.randn(1, 3, 8, 8)).groups
        whole, first = TaylorImportance(), TaylorImportance()
        for seed in (0, 1, 2):
            backward(model, seed)
            whole.observe(groups, dict(model.named_parameters()))
            if seed < 2:
                first.observe(groups, dict(model.named_parameters()))
        torch.save(first.state_dict(), tmp_path / 'state.pth')
        second = TaylorImportance()
        second.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True), groups)
        second.observe(groups, dict(model.named_parameters()))
        for group in groups:
            kept = torch.ones(group.size, dtype=torch.bool)
            assert torch.equal(whole.scores(group, {}, kept), second.scores(group, {}, kept))

    def test_normalize(self):
        model = chain()
        groups = trace(model, torch.randn(1, 3, 8, 8)).groups
        backward(model, 0)
        plain, divided = TaylorImportance(), TaylorImportance(normalize=True)
        for criterion in (plain, divided):
            criterion.observe(groups, dict(model.named_parameters()))
        kept = torch.arange(8) < 5
        raw = plain.scores(groups[0], {}, kept)
        torch.testing.assert_close(divided.scores(groups[0], {}, kept), raw / raw[:5].mean())

    def test_group_without_a_gradient_has_no_score(self):
        """0 would say that its channels are useless."""
        model, groups = one_group()
        criterion = TaylorImportance()
        criterion.observe(groups, dict(model.named_parameters()))
        assert criterion.scores(groups[0], {}, ALL_OF_FOUR).isnan().all()
        normalized = TaylorImportance(normalize=True)
        normalized.observe(groups, dict(model.named_parameters()))
        assert normalized.scores(groups[0], {}, ALL_OF_FOUR).isnan().all()

    @pytest.mark.parametrize('saved', [False, True])
    def test_interval_without_a_gradient_has_the_scores_of_the_one_before(self, saved, tmp_path):
        model, groups = one_group()
        parameters = dict(model.named_parameters())
        criterion = TaylorImportance()
        model(torch.ones(2, 3, 4, 4)).square().sum().backward()
        criterion.observe(groups, parameters)
        scores = criterion.scores(groups[0], {}, ALL_OF_FOUR)
        assert scores.all()
        gradients = {name: p.grad for name, p in parameters.items()}
        for _ in range(2):  # intervals
            criterion.start_interval()
            model.zero_grad()
            criterion.observe(groups, parameters)
            if saved:
                torch.save(criterion.state_dict(), tmp_path / 'state.pth')
                criterion = TaylorImportance()
                state = torch.load(tmp_path / 'state.pth', weights_only=True)
                criterion.load_state_dict(state, groups)
            assert torch.equal(criterion.scores(groups[0], {}, ALL_OF_FOUR), scores)
        for name, parameter in parameters.items():  # half of the passes of this interval
            parameter.grad = gradients[name]
        criterion.observe(groups, parameters)
        assert torch.equal(criterion.scores(groups[0], {}, ALL_OF_FOUR), scores / 2)

    def test_state_without_the_interval_before(self):
        """As versions up to 0.1 wrote it."""
        _, groups = one_group()
        criterion = TaylorImportance()
        criterion.load_state_dict(dict(sums=[torch.ones(4)], count=2), groups)
        assert criterion.scores(groups[0], {}, ALL_OF_FOUR).tolist() == [0.5] * 4
        with pytest.raises(ValueError, match='last of 1 groups'):
            criterion.load_state_dict(dict(sums=[], count=0, last=[torch.ones(3)]), groups)


ALL_OF_FOUR = torch.ones(4, dtype=torch.bool)


def one_group() -> tuple[Net, list[ChannelGroup]]:
    model = Net(lambda n, x: n.head(F.relu(n.a(x))), a=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model.a.weight.copy_(torch.linspace(0.1, 1, 12).reshape(4, 3, 1, 1))
    return model, trace(model, torch.randn(1, 3, 8, 8)).groups
