# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math

import pytest
import torch

from _utils.toy import ToyData, ToyModel
from mmdet_adasap.sharpness import (
    AdaptivePerturbation,
    LossRatioController,
    UniformPerturbation,
)

NEAR, FAR = torch.tensor(0.01), torch.tensor(0.04)


def after(*updates, ratio=1.3) -> LossRatioController:
    controller = LossRatioController(ratio)
    for loss, perturbed, eps_ratio, usable in updates:
        controller.update(torch.tensor(loss), torch.tensor(perturbed), eps_ratio, usable)
    return controller


class TestFormula:
    def test_by_hand(self):
        """Gains of 3 / 10, 3 / 11 and 3 / 12; errors of 2 / 3, -1 and -10, the most."""
        controller = after((1.0, 1.1, NEAR, True), (2.0, 3.2, NEAR, True), (1.0, 9.0, NEAR, True))
        wanted = math.log(0.01) + 0.3 * 2 / 3 - 3 / 11 - 0.25 * 10
        assert float(controller.log_scale) == pytest.approx(wanted, rel=1e-6)
        assert float(controller.scale) == pytest.approx(math.exp(wanted), rel=1e-5)

    def test_gain_ends_at_a_tenth(self):
        """At 1.3 nothing moves, however many steps there were."""
        controller = after(*[(1.0, 1.3, NEAR, True)] * 100)
        assert float(controller.log_scale) == pytest.approx(math.log(0.01), abs=1e-5)
        controller.update(torch.tensor(1.0), torch.tensor(1.0), NEAR)
        assert float(controller.log_scale) == pytest.approx(math.log(0.01) + 0.1, abs=1e-5)

    @pytest.mark.parametrize(
        'update',
        [
            (1.0, 1.0, NEAR, torch.tensor(False)),
            (math.inf, 1.0, NEAR, True),
            (math.nan, math.nan, NEAR, True),
            (0.0, 1.0, NEAR, True),
            (-1.0, 1.0, NEAR, True),
        ],
    )
    def test_steps_that_say_nothing_do_not_count(self, update):
        assert after(update).state_dict() == LossRatioController(1.3).state_dict()

    @pytest.mark.parametrize('bad', [math.inf, math.nan])
    def test_perturbed_loss_that_is_not_finite_is_too_far(self, bad):
        found, most = after((1.0, bad, NEAR, True)), after((1.0, 100.0, NEAR, True))
        assert found.state_dict() == most.state_dict()

    def test_far_from_the_weights_it_only_falls(self):
        assert float(after((1.0, 1.0, FAR, True)).scale) == pytest.approx(0.01)
        assert float(after((1.0, 1.6, FAR, True)).scale) < 0.009

    def test_bounds(self):
        assert float(after(*[(1.0, 1.0, NEAR, True)] * 200).scale) == pytest.approx(100)
        assert float(after(*[(1.0, 99.0, NEAR, True)] * 20).scale) == pytest.approx(1e-4)


class TestState:
    def test_goes_on_from_there(self):
        first, second = after((1.0, 1.1, NEAR, True)), LossRatioController(1.3)
        second.load_state_dict(first.state_dict())
        for each in (first, second):
            each.update(torch.tensor(1.0), torch.tensor(1.2), NEAR)
        assert first.state_dict() == second.state_dict()

    @pytest.mark.parametrize(
        ('key', 'value'),
        [('log_scale', math.nan), ('log_scale', '1'), ('steps', -1.0), ('steps', None)],
    )
    def test_other_states_are_refused(self, key, value):
        controller = LossRatioController(1.3)
        with pytest.raises(ValueError, match=f'{key}='):
            controller.load_state_dict(controller.state_dict() | {key: value})


class TestArguments:
    @pytest.mark.parametrize('kind', [AdaptivePerturbation, UniformPerturbation])
    @pytest.mark.parametrize('ratio', [1, 0.5, math.inf, math.nan])
    def test_ratio_has_to_be_above_1(self, kind, ratio):
        with pytest.raises(ValueError, match=r'loss_ratio=.* must be above 1'):
            kind(loss_ratio=ratio)

    @pytest.mark.parametrize('ratio', ['1.3', True, [1.3]])
    def test_ratio_has_to_be_a_number(self, ratio):
        with pytest.raises(TypeError, match=r'loss_ratio=.* is not a number'):
            UniformPerturbation(loss_ratio=ratio)

    def test_radius_of_0(self):
        with pytest.raises(ValueError, match=r'rho_max=0 and loss_ratio=1\.3'):
            AdaptivePerturbation(0, 0, loss_ratio=1.3)
        with pytest.raises(ValueError, match=r'rho=0 and loss_ratio=1\.3'):
            UniformPerturbation(0, loss_ratio=1.3)
        AdaptivePerturbation(0, 0.1, loss_ratio=1.3)


def train(perturbation, steps: int) -> list[float]:
    """Ratios of the steps of a small network that learns to tell classes apart."""
    torch.manual_seed(0)
    model, data, found = ToyModel(), ToyData(96), []
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    perturbation.attach(model)
    for _ in range(steps):
        chosen = torch.randperm(96)[:16]
        images = data.images[chosen] + 0.3 * torch.randn(16, 3, 8, 8)
        optimizer.zero_grad()
        loss = model(images, data.labels[chosen], 'loss')['loss']
        loss.backward()
        with perturbation.applied():
            perturbed = model(images, data.labels[chosen], 'loss')['loss']
            perturbed.backward()
        perturbation.update(loss.detach(), perturbed.detach())
        optimizer.step()
        found.append(float(perturbed.detach() / loss.detach()))
    return found


@pytest.mark.parametrize('factor', [1 / 30, 1, 30])
@pytest.mark.parametrize('kind', [AdaptivePerturbation, UniformPerturbation])
def test_ratio_is_held(kind, factor):
    """From radii that are 30 times smaller or larger, too, and of ε alone the size changes."""
    radii = dict(rho_min=0.004 * factor, rho_max=0.4 * factor)
    if kind is UniformPerturbation:
        radii = dict(rho=0.1 * factor, scope='layer', asam=True)
    ratios = train(kind(**radii, loss_ratio=1.3), 250)
    assert sum(ratios[150:]) / 100 == pytest.approx(1.3, abs=0.05)


def test_all_radii_are_scaled_alike():
    torch.manual_seed(0)
    model, data = ToyModel(), ToyData(16)
    eps = []
    for ratio in (None, 1.3):
        perturbation = AdaptivePerturbation(0.02, 0.4, loss_ratio=ratio)
        perturbation.attach(model)
        model.zero_grad()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.eval()(data.images, data.labels, 'loss')['loss'].backward()
        with perturbation.applied() as stats:
            eps.append({n: p.detach() - before[n] for n, p in model.named_parameters()})
        eps[-1]['mean_rho'] = stats.mean_rho
    for name, moved in eps[0].items():
        torch.testing.assert_close(eps[1][name], 0.01 * moved, rtol=1e-3, atol=1e-7)
