# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Steps that cost less than two passes: every k-th, and by what the optimizer remembers."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper

from _utils.adasap_runs import assert_same_weights, kill_after
from _utils.adasap_runs import train as run
from _utils.toy import settings
from _utils.two_pass import OPTIMIZERS, STEPS, TinyModel, assert_same, batch, loss_of, optimizer_of
from _utils.two_pass import train as train_tiny
from mmdet_adasap.optim import AdaSAPAmpOptimWrapper, AdaSAPOptimWrapper
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation

RHO = 0.05


def wrapped(model, optimizer='sgd', counts=1, **kwargs) -> AdaSAPOptimWrapper:
    kwargs = dict(perturbation=UniformPerturbation(RHO)) | kwargs
    wrapper = AdaSAPOptimWrapper(
        optimizer_of(model, optimizer), accumulative_counts=counts, **kwargs
    )
    wrapper.initialize_count_status(model, 0, STEPS)
    return wrapper


def momentum_of(optimizer, parameter):
    state = optimizer.state.get(parameter, {})
    return state.get('momentum_buffer', state.get('exp_avg'))


class TestAgainstTheFormula:
    """The same written out, with one radius and the norm over all weights."""

    @pytest.mark.parametrize('optimizer', OPTIMIZERS)
    @pytest.mark.parametrize('direction', ['momentum', 'previous'])
    def test_one_pass(self, optimizer, direction, monkeypatch):
        # A bias before a batch norm has a gradient of 0 and rounding, which Adam would scale up.
        monkeypatch.setitem(OPTIMIZERS['adamw'][1], 'eps', 1e-3)
        model, reference = TinyModel(), TinyModel()
        wrapper = wrapped(model, optimizer, direction=direction)
        train_tiny(model, wrapper)

        plain, previous = optimizer_of(reference, optimizer), {}
        params = list(reference.parameters())
        for step in range(STEPS):
            before = [p.detach().clone() for p in params]
            if direction == 'momentum':
                past = [momentum_of(plain, p) for p in params]
            else:
                past = [previous.get(p) for p in params]
            if past[0] is not None:
                norm = torch.cat([p.flatten() for p in past]).norm()
                sign = -1 if direction == 'momentum' else 1
                with torch.no_grad():
                    for param, moved in zip(params, past, strict=True):
                        param += sign * RHO * moved / norm
            plain.zero_grad()
            loss_of(reference, batch(step)).backward()
            previous = {p: p.grad.clone() for p in params}
            with torch.no_grad():
                for param, value in zip(params, before, strict=True):
                    param.copy_(value)
            plain.step()
        assert model.calls == reference.calls == STEPS
        for name, value in reference.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)

    def test_the_first_step_is_a_plain_one(self):
        models = TinyModel(), TinyModel()
        train_tiny(models[0], wrapped(models[0], direction='momentum'), 1)
        train_tiny(models[1], wrapped(models[1], perturbation=None), 1)
        assert_same(*models)


class TestEvery:
    @pytest.mark.parametrize('counts', [1, 2])
    def test_steps_between_are_plain(self, counts):
        """With micro-batches, too: all of a step are moved, or none."""
        models = TinyModel(dropout=0.3), TinyModel(dropout=0.3)
        train_tiny(models[0], wrapped(models[0], counts=counts, every=3))
        other = wrapped(models[1], counts=counts)
        perturbation, step = other.perturbation, models[1].train_step

        def by_hand(data, wrapper):
            sharp = other.inner_count // counts % 3 == 0
            if sharp != (other.perturbation is not None):
                other.perturbation = perturbation if sharp else None
            return step(data, wrapper)

        models[1].train_step = by_hand
        train_tiny(models[1], other)
        assert_same(*models)
        sharp = len([i for i in range(STEPS) if i // counts % 3 == 0])
        assert models[0].calls == models[1].calls == STEPS + sharp

    def test_what_is_told(self):
        model = TinyModel()
        wrapper = wrapped(model, every=2)
        told = []
        for step in range(4):
            model.train_step(batch(step), wrapper)
            told.append(wrapper.last_stats and set(wrapper.last_stats))
        names = {'mean_rho', 'eps_ratio', 'loss', 'perturbed_loss', 'loss_ratio'}
        assert told == [names, None, names, None]

    def test_a_pass_of_the_past_has_no_ratio(self):
        model = TinyModel()
        wrapper = wrapped(model, direction='previous')
        for step in range(2):
            model.train_step(batch(step), wrapper)
        assert set(wrapper.last_stats) == {'mean_rho', 'eps_ratio'}
        assert float(wrapper.last_stats['mean_rho']) == pytest.approx(RHO)


class TestFailures:
    def test_the_weights_go_back(self):
        model = TinyModel(fail_at=3)
        wrapper = wrapped(model, direction='momentum')
        train_tiny(model, wrapper, 2)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(FloatingPointError):
            model.train_step(batch(2), wrapper)
        assert_same(model, type('State', (), {'state_dict': lambda self: before})())
        model.fail_at = None
        model.train_step(batch(2), wrapper)

    def test_the_context_is_left_out(self):
        model = TinyModel()
        wrapper = wrapped(model, direction='momentum')
        with pytest.raises(RuntimeError, match='inside optim_context'):
            wrapper.update_params(loss_of(model, batch()))

    @pytest.mark.parametrize(
        ('arguments', 'words'),
        [
            (dict(every=0), r'optim_wrapper\.every=0'),
            (dict(every=1.5), r'optim_wrapper\.every=1\.5'),
            (dict(direction='up'), r"optim_wrapper\.direction='up' is unknown; use one of"),
            (
                dict(direction='previous', perturbation=AdaptivePerturbation(loss_ratio=1.3)),
                r'loss_ratio=1\.3 needs the loss of a clean pass',
            ),
        ],
    )
    def test_settings(self, arguments, words):
        with pytest.raises(ValueError, match=words):
            wrapped(TinyModel(), **arguments)

    @pytest.mark.parametrize('kind', [torch.optim.SGD, torch.optim.Adagrad])
    def test_an_optimizer_without_momentum(self, kind):
        optimizer = kind(TinyModel().parameters(), lr=0.1)
        with pytest.raises(ValueError, match=f'with momentum, and {kind.__name__} has none'):
            AdaSAPOptimWrapper(optimizer, direction='momentum')
        AdaSAPOptimWrapper(optimizer, direction='previous')


@pytest.mark.parametrize('direction', ['momentum', 'previous'])
def test_mixed_precision(direction):
    """In bfloat16, which a CPU has: one pass, and weights in float32."""
    model = TinyModel()
    wrapper = AdaSAPAmpOptimWrapper(
        optimizer_of(model), perturbation=UniformPerturbation(RHO), direction=direction
    )
    wrapper.initialize_count_status(model, 0, STEPS)
    train_tiny(model, wrapper)
    assert model.calls == STEPS
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize('kind', [OptimWrapper, AdaSAPOptimWrapper])
def test_other_wrappers_take_up_the_state(kind):
    model = TinyModel()
    wrapper = wrapped(model, direction='previous')
    train_tiny(model, wrapper, 2)
    other = kind(optimizer_of(model))
    other.load_state_dict(wrapper.state_dict())
    model.train_step(batch(2), other)


@pytest.mark.parametrize('killed_at', [13, pytest.param(25, marks=pytest.mark.long)])
@pytest.mark.parametrize('cheap', [dict(every=2), dict(direction='momentum')], ids=str)
def test_resumed_equals_uninterrupted(tmp_path, cheap, killed_at):
    check_resume(tmp_path, cheap, killed_at)


@pytest.mark.long
@pytest.mark.parametrize('killed_at', [13, 25])
def test_resumed_with_the_gradient_before(tmp_path, killed_at):
    """It is a part of the optimizer's state: saved and loaded, and cut with the channels."""
    check_resume(tmp_path, dict(direction='previous'), killed_at)


def check_resume(folder, cheap, killed_at):
    wrapper = settings('')['optim_wrapper'] | cheap
    whole = run(settings(folder / 'whole', optim_wrapper=wrapper))
    kill_after(settings(folder / 'parts', optim_wrapper=wrapper), killed_at)
    resumed = run(settings(folder / 'parts', optim_wrapper=wrapper, resume=True))
    assert_same_weights(resumed.model, whole.model)
