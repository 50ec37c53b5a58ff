# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re

import pytest
import torch
from torch import nn

from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation

SCOPES = ('global', 'layer', 'neuron')


def two_layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def backward(model, shape=(5, 3)):
    torch.manual_seed(1)
    model.zero_grad()
    model(torch.randn(shape)).square().sum().backward()


def moved(model, perturbation):
    """What ``perturb`` adds to each parameter, in float64, and its stats."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stats = perturbation.perturb()
    delta = {name: (p.detach() - before[name]).double() for name, p in model.named_parameters()}
    perturbation.restore()
    for name, param in model.named_parameters():
        assert torch.equal(param, before[name])
    return delta, stats


def transcribed(weights, grads, radii, scope, asam, eta=0.01):
    """ε_i = rho_i T_w² g_i / ‖T_w g‖, neuron by neuron with Python loops, in float64."""
    weights = {name: w.detach().double() for name, w in weights.items()}
    grads = {name: g.detach().double() for name, g in grads.items()}
    transforms = {n: w.abs() + eta if asam else torch.ones_like(w) for n, w in weights.items()}

    def square(name, i):
        return float(((transforms[name][i] * grads[name][i]) ** 2).sum())

    total = sum(square(n, i) for n in weights for i in range(len(weights[n])))
    eps = {}
    for name in weights:
        layer = sum(square(name, i) for i in range(len(weights[name])))
        eps[name] = torch.zeros_like(weights[name])
        for i in range(len(weights[name])):
            norm = {'global': total, 'layer': layer, 'neuron': square(name, i)}[scope] ** 0.5
            eps[name][i] = radii[name][i] * transforms[name][i] ** 2 * grads[name][i] / norm
    return eps


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('asam', [True, False])
@pytest.mark.parametrize('kind', [AdaptivePerturbation, UniformPerturbation])
def test_float64_is_exact(kind, scope, asam):
    """Radii of weights in float64 are not rounded to float32, which would be 5e-8 of ε."""
    model = two_layers().double()
    torch.manual_seed(1)
    model(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    weights = {n: p for n, p in model.named_parameters() if n.endswith('weight')}
    grads = {n: p.grad.clone() for n, p in weights.items()}
    if kind is UniformPerturbation:
        perturbation = kind(rho=0.1, scope=scope, asam=asam, parameters='weights')
        radii = {name: [0.1] * len(weight) for name, weight in weights.items()}
    else:
        perturbation, radii = kind(0.03, 0.3, scope=scope, asam=asam), {}
        for name, weight in weights.items():
            s = [float(row.norm()) for row in weight.detach()]
            radii[name] = [0.3 - (x - min(s)) / (max(s) - min(s)) * (0.3 - 0.03) for x in s]
    expected = transcribed(weights, grads, radii, scope, asam)
    perturbation.attach(model)
    delta, stats = moved(model, perturbation)
    for name in weights:
        torch.testing.assert_close(delta[name], expected[name], rtol=1e-12, atol=1e-15)
    assert stats.mean_rho.dtype == torch.float64


class TestAdaptivePerturbation:
    @pytest.mark.parametrize('scope', SCOPES)
    @pytest.mark.parametrize('asam', [True, False])
    def test_against_a_transcription_of_the_formula(self, scope, asam):
        model = two_layers()
        backward(model)
        weights = {n: p for n, p in model.named_parameters() if n.endswith('weight')}
        grads = {n: p.grad.clone() for n, p in weights.items()}
        radii = {}
        for name, weight in weights.items():
            s = [float(row.double().norm()) for row in weight.detach()]
            radii[name] = [0.5 - (x - min(s)) / (max(s) - min(s)) * (0.5 - 0.02) for x in s]
        expected = transcribed(weights, grads, radii, scope, asam)

        perturbation = AdaptivePerturbation(0.02, 0.5, scope=scope, asam=asam)
        perturbation.attach(model)
        delta, stats = moved(model, perturbation)
        for name in weights:
            torch.testing.assert_close(delta[name], expected[name], rtol=1e-5, atol=2e-7)
        assert not delta['0.bias'].any()
        assert not delta['2.bias'].any()

        flat = torch.cat([e.flatten() for e in expected.values()])
        size = torch.cat([w.detach().flatten() for w in weights.values()]).norm()
        rho = [r for layer in radii.values() for r in layer]
        assert float(stats.eps_norm) == pytest.approx(float(flat.norm()), rel=1e-5)
        assert float(stats.weight_norm) == pytest.approx(float(size), rel=1e-6)
        assert float(stats.ratio) == pytest.approx(float(flat.norm() / size), rel=1e-5)
        assert float(stats.mean_rho) == pytest.approx(sum(rho) / len(rho), rel=1e-5)

    def test_by_hand(self):
        model = nn.Linear(1, 2, bias=False)
        model.weight.data = torch.tensor([[1.0], [3.0]])
        model.weight.grad = torch.tensor([[3.0], [4.0]])
        perturbation = AdaptivePerturbation(0.1, 0.5, scope='layer', asam=False)
        perturbation.attach(model)
        perturbation.perturb()
        # ‖g‖ = 5; the smaller weight has radius 0.5, the larger one 0.1.
        torch.testing.assert_close(model.weight.detach(), torch.tensor([[1.3], [3.08]]))

    def test_neurons_of_a_transposed_convolution(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2))
        backward(model, (1, 3, 5, 5))
        weight = model[0].weight
        grad = weight.grad.clone()
        scores = torch.linalg.vector_norm(weight.detach(), dim=(0, 2, 3))
        rank = (scores - scores.min()) / (scores.max() - scores.min())
        rho = (0.4 - rank * 0.3).view(1, 4, 1, 1)
        norms = torch.linalg.vector_norm(grad, dim=(0, 2, 3), keepdim=True)
        perturbation = AdaptivePerturbation(0.1, 0.4, scope='neuron', asam=False)
        perturbation.attach(model)
        delta, _ = moved(model, perturbation)
        torch.testing.assert_close(
            delta['0.weight'].float(), rho * grad / norms, rtol=1e-4, atol=1e-6
        )

    def test_takes_convolutions_not_of_torch(self):
        class DeformConv2d(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))

            def forward(self, x):
                return nn.functional.conv2d(x, self.weight)

        model = nn.Sequential(DeformConv2d(), nn.BatchNorm2d(4))
        backward(model, (2, 3, 4, 4))
        perturbation = AdaptivePerturbation()
        perturbation.attach(model)
        delta, _ = moved(model, perturbation)
        assert delta['0.weight'].any()
        assert not delta['1.weight'].any()

    def test_no_layer_to_move(self):
        with pytest.raises(ValueError, match="parameters='all'"):
            AdaptivePerturbation().attach(nn.BatchNorm2d(3))


class TestUniformPerturbation:
    @pytest.mark.parametrize('scope', SCOPES)
    @pytest.mark.parametrize('asam', [True, False])
    @pytest.mark.parametrize('parameters', ['all', 'weights'])
    def test_size_is_rho_in_the_norm_of_the_scope(self, scope, asam, parameters):
        # ‖ε / T_w‖ = rho over every scope, by the definition of (A)SAM's ball.
        model = two_layers()
        backward(model)
        params = {n: p.detach().double().clone() for n, p in model.named_parameters()}
        perturbation = UniformPerturbation(0.3, scope, asam, parameters=parameters)
        perturbation.attach(model)
        delta, stats = moved(model, perturbation)
        chosen = [n for n in params if parameters == 'all' or n.endswith('weight')]
        assert all(bool(delta[n].any()) == (n in chosen) for n in params)
        scaled = {n: delta[n] / (params[n].abs() + 0.01 if asam else 1) for n in chosen}
        rows = []
        for value in scaled.values():
            # A bias has no neurons: one block.
            rows += list(value) if scope == 'neuron' and value.dim() > 1 else [value]
        if scope == 'global':
            rows = [torch.cat([row.flatten() for row in rows])]
        for row in rows:
            assert float(row.norm()) == pytest.approx(0.3, rel=1e-3)
        assert float(stats.mean_rho) == pytest.approx(0.3)


def both():
    return [
        pytest.param(lambda **kw: AdaptivePerturbation(0.1, 0.4, **kw), id='adaptive'),
        pytest.param(lambda **kw: UniformPerturbation(0.2, **kw), id='uniform'),
    ]


@pytest.mark.parametrize('make', both())
class TestPerturbation:
    @pytest.mark.parametrize('scope', SCOPES)
    @pytest.mark.parametrize('asam', [True, False])
    def test_masked_neurons(self, make, scope, asam):
        # As if the masked neurons were not there, whatever their weights and gradients are.
        model = two_layers()
        backward(model)
        small = two_layers()
        kept = torch.tensor([True, False, True, False])
        for name, param in small.named_parameters():
            full = dict(model.named_parameters())[name]
            cut = kept if name.startswith('0') else slice(None)
            param.data, param.grad = full.data[cut].clone(), full.grad[cut].clone()
        with torch.no_grad():
            model[0].weight[1] = 1000.0
            model[0].weight.grad[1] = float('nan')
            model[0].bias.grad[3] = float('inf')
            model[0].weight.grad[3] = 1000.0

        perturbation, reference = make(scope=scope, asam=asam), make(scope=scope, asam=asam)
        perturbation.attach(model)
        reference.attach(small)
        perturbation.keep = {'0.weight': kept, '0.bias': kept}
        delta, stats = moved(model, perturbation)
        expected, expected_stats = moved(small, reference)
        for name in ('0.weight', '0.bias'):
            assert not delta[name][~kept].any()
            torch.testing.assert_close(delta[name][kept], expected[name], rtol=1e-5, atol=2e-7)
        torch.testing.assert_close(delta['2.weight'], expected['2.weight'], rtol=1e-5, atol=2e-7)
        torch.testing.assert_close(torch.stack(stats), torch.stack(expected_stats))

    def test_mask_that_does_not_fit(self, make):
        model = two_layers()
        backward(model)
        perturbation = make()
        perturbation.attach(model)
        perturbation.keep = {'0.weight': torch.ones(3, dtype=torch.bool)}
        with pytest.raises(ValueError, match=re.escape("keep['0.weight']")):
            perturbation.perturb()

    @pytest.mark.parametrize('scope', SCOPES)
    @pytest.mark.parametrize('asam', [True, False])
    def test_zero_and_bad_gradients_move_nothing(self, make, scope, asam):
        model = two_layers()
        perturbation = make(scope=scope, asam=asam)
        perturbation.attach(model)
        for value in (0.0, float('nan'), float('inf')):
            for param in model.parameters():
                param.grad = torch.full_like(param, value)
            delta, stats = moved(model, perturbation)
            assert not any(d.any() for d in delta.values())  # any() is True for NaN
            assert float(stats.eps_norm) == 0

    def test_bad_gradient_spoils_its_scope_only(self, make):
        for scope, others in (('global', False), ('layer', True), ('neuron', True)):
            model = two_layers()
            backward(model)
            model[0].weight.grad[0, 0] = float('nan')
            perturbation = make(scope=scope)
            perturbation.attach(model)
            delta, _ = moved(model, perturbation)
            assert not delta['0.weight'][0].any()
            assert bool(delta['0.weight'][1].any()) == (scope == 'neuron')
            assert bool(delta['2.weight'].any()) == others

    def test_disabled(self, make):
        model = two_layers()
        backward(model)
        model[0].weight.grad[0, 0] = float('nan')
        perturbation = make(scope='layer')
        perturbation.attach(model)
        before = [p.detach().clone() for p in model.parameters()]
        perturbation.perturb(enabled=torch.tensor(False))
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    def test_frozen_parameters_and_missing_gradients(self, make):
        model = two_layers()
        perturbation = make(scope='global', asam=True)
        perturbation.attach(model)
        backward(model)
        model[0].weight.requires_grad_(False)  # after attach; its gradient is still there
        delta, stats = moved(model, perturbation)
        assert not delta['0.weight'].any()
        assert delta['2.weight'].any()

        for param in model.parameters():
            param.grad = None
        delta, stats = moved(model, perturbation)
        assert not any(d.any() for d in delta.values())
        assert [float(s) for s in stats] == [0, 0, 0]
        assert float(stats.ratio) == 0

    def test_shared_weights_move_once(self, make):
        torch.manual_seed(0)
        shared = nn.Linear(3, 3)
        tied = nn.Linear(3, 3)
        tied.weight = shared.weight
        model = nn.Sequential(shared, nn.Tanh(), shared, tied)
        backward(model)
        alone = nn.Sequential(nn.Linear(3, 3))
        alone[0].weight.data = shared.weight.data.clone()
        alone[0].weight.grad = shared.weight.grad.clone()
        deltas = []
        for net in (model, alone):
            perturbation = make(scope='layer')
            perturbation.attach(net)
            deltas.append(moved(net, perturbation)[0]['0.weight'])
        torch.testing.assert_close(*deltas)

    def test_shapes_may_change_between_steps(self, make):
        model = two_layers()
        perturbation = make()
        perturbation.attach(model)
        backward(model)
        moved(model, perturbation)
        model.zero_grad()
        model[0].weight.data = model[0].weight.data[:2].clone()
        model[0].bias.data = model[0].bias.data[:2].clone()
        model[2].weight.data = model[2].weight.data[:, :2].clone()
        backward(model)
        delta, _ = moved(model, perturbation)
        assert delta['0.weight'].shape == (2, 3)
        assert delta['0.weight'].any()

    def test_restore_is_exact_and_keeps_identity(self, make):
        model = two_layers()
        backward(model)
        perturbation = make(asam=True)
        perturbation.attach(model)
        weight, pointer = model[0].weight, model[0].weight.data_ptr()
        before = weight.detach().clone()

        def second_pass():
            with perturbation.applied():
                assert not torch.equal(weight, before)
                assert weight.grad is None
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            second_pass()
        assert torch.equal(weight, before)
        assert model[0].weight is weight
        assert weight.data_ptr() == pointer
        with torch.no_grad():
            weight += 1
        perturbation.restore()
        assert torch.equal(weight, before + 1)  # a second restore does nothing

    def test_an_error_half_way_puts_back_what_was_moved(self, make, monkeypatch):
        model = two_layers()
        backward(model)
        perturbation = make(asam=False)
        perturbation.attach(model)
        before = [p.detach().clone() for p in model.parameters()]

        def fail_after_the_first(targets, others):
            targets[0].add_(others[0])
            raise RuntimeError('out of memory')

        monkeypatch.setattr(torch, '_foreach_add_', fail_after_the_first)
        with pytest.raises(RuntimeError, match='out of memory'):
            perturbation.perturb()
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    def test_half_precision_is_worked_on_in_float32(self, make):
        model = two_layers().to(torch.bfloat16)
        reference = two_layers().to(torch.bfloat16).float()
        for param, full in zip(model.parameters(), reference.parameters(), strict=True):
            full.grad = torch.randn_like(full).to(torch.bfloat16).float()
            param.grad = full.grad.to(torch.bfloat16)
        before = [p.detach().clone() for p in model.parameters()]
        for net in (model, reference):
            perturbation = make(asam=True)
            perturbation.attach(net)
            perturbation.perturb()
        for param, full in zip(model.parameters(), reference.parameters(), strict=True):
            assert torch.equal(param, full.to(torch.bfloat16))
        perturbation.attach(model)
        for param, old in zip(model.parameters(), before, strict=True):
            assert param.dtype == old.dtype

    def test_order_of_calls(self, make):
        perturbation = make()
        with pytest.raises(RuntimeError, match='attach'):
            perturbation.perturb()
        model = two_layers()
        perturbation.attach(model)
        backward(model)
        perturbation.perturb()
        backward(model)
        with pytest.raises(RuntimeError, match='restore'):
            perturbation.perturb()


NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(
    ('cls', 'arguments', 'error', 'message'),
    [
        (AdaptivePerturbation, {'rho_min': 0.5}, ValueError, 'rho_min=0.5 is larger than rho_max'),
        (AdaptivePerturbation, {'rho_min': -1}, ValueError, 'rho_min=-1 must be'),
        (AdaptivePerturbation, {'rho_max': NAN}, ValueError, 'rho_max=nan must be'),
        (AdaptivePerturbation, {'score': 'taylor'}, ValueError, "score='taylor' is unknown"),
        (UniformPerturbation, {'rho': -0.1}, ValueError, 'rho=-0.1 must be'),
        (UniformPerturbation, {'rho': INF}, ValueError, 'rho=inf must be'),
        (UniformPerturbation, {'rho': '0.1'}, TypeError, "rho='0.1' is not a number"),
        (UniformPerturbation, {'rho': True}, TypeError, 'rho=True is not a number'),
        (UniformPerturbation, {'eta': -1}, ValueError, 'eta=-1 must be'),
        (UniformPerturbation, {'scope': 'network'}, ValueError, "'global', 'layer', 'neuron'"),
        (UniformPerturbation, {'scope': None}, ValueError, 'scope=None is unknown'),
        (UniformPerturbation, {'parameters': 'bias'}, ValueError, "use one of 'all', 'weights'"),
    ],
)
def test_bad_arguments(cls, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        cls(**arguments)
