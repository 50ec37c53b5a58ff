# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
from functools import partial

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from pytorch_optimizer import SAM
from torch import nn

from _utils.two_pass import (
    OPTIMIZERS,
    STEPS,
    TinyModel,
    assert_same,
    batch,
    gradients,
    loss_of,
    optimizer_of,
    train,
)
from mmdet_adasap.optim import AdaSAPOptimWrapper, observe_clean_gradients
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation


class TestRhoZero:
    """rho = 0 is the plain wrapper to the bit, running statistics and random numbers too."""

    @pytest.mark.parametrize('optimizer', OPTIMIZERS)
    @pytest.mark.parametrize('counts', [1, 3])
    @pytest.mark.parametrize('momentum', [0.1, None])
    @pytest.mark.parametrize(
        'perturbation',
        [
            AdaptivePerturbation(0, 0),
            UniformPerturbation(0, asam=True),
            None,
        ],
        ids=['adaptive', 'uniform', 'none'],
    )
    def test_equals_the_plain_wrapper(self, optimizer, counts, momentum, perturbation):
        models, logs = [], []
        for cls, extra in (
            (OptimWrapper, {}),
            (AdaSAPOptimWrapper, {'perturbation': perturbation}),
        ):
            model = TinyModel(momentum, dropout=0.3)
            wrapper = cls(
                optimizer_of(model, optimizer),
                accumulative_counts=counts,
                clip_grad={'max_norm': 0.5},
                **extra,
            )
            wrapper.initialize_count_status(model, 0, STEPS)
            logs.append(train(model, wrapper))
            logs[-1].append({'random': torch.rand(1)})
            models.append(model)
            assert wrapper.inner_count == STEPS
        assert_same(models[1], models[0])
        assert [{k: float(v) for k, v in log.items()} for log in logs[0]] == [
            {k: float(v) for k, v in log.items()} for log in logs[1]
        ]
        assert models[1].calls == models[0].calls * (1 if perturbation is None else 2)


class TestAgainstSAM:
    @pytest.mark.parametrize('optimizer', OPTIMIZERS)
    @pytest.mark.parametrize('asam', [False, True])
    def test_uniform_global_equals_pytorch_optimizer(self, optimizer, asam):
        # In eval mode, as the reference has its own idea of what batch norm does in between.
        rho = 0.5 if asam else 0.05
        model = TinyModel().eval()
        perturbation = {
            'type': 'UniformPerturbation',
            'rho': rho,
            'scope': 'global',
            'asam': asam,
            'eta': 0,
        }
        wrapper = AdaSAPOptimWrapper(optimizer_of(model, optimizer), perturbation=perturbation)
        start = copy.deepcopy(model.state_dict())
        train(model, wrapper)

        reference = TinyModel().eval()
        cls, arguments = OPTIMIZERS[optimizer]
        sam = SAM(reference.parameters(), cls, rho=rho, adaptive=asam, **arguments)
        plain = TinyModel().eval()
        train(plain, OptimWrapper(optimizer_of(plain, optimizer)))
        for step in range(STEPS):
            for move in (sam.first_step, sam.second_step):
                loss_of(reference, batch(step)).backward()
                move(zero_grad=True)
        for name, param in model.named_parameters():
            expected = dict(reference.named_parameters())[name]
            torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-6)
            assert not torch.allclose(param, start[name], atol=1e-3)
            assert not torch.allclose(param, dict(plain.named_parameters())[name], atol=1e-5)


class TestTwoPasses:
    def wrapped(self, model, perturbation=None, **kwargs):
        if perturbation is None:
            perturbation = UniformPerturbation(0.3)
        # lr = 0 leaves the weights where they are, so that restoring shows in them.
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        return AdaSAPOptimWrapper(optimizer, perturbation=perturbation, **kwargs)

    def expected(self, model, data, perturbation=None):
        """Gradients at w + ε, the clean ones and both losses, worked out on a copy."""
        model = copy.deepcopy(model)
        perturbation = UniformPerturbation(0.3) if perturbation is None else perturbation
        perturbation.attach(model)
        model.zero_grad()
        clean = loss_of(model, data)
        clean.backward()
        first = gradients(model)
        stats = perturbation.perturb()
        model.zero_grad()
        perturbed = loss_of(model, data)
        perturbed.backward()
        return gradients(model), first, clean.detach(), perturbed.detach(), stats

    def observe_steps(self, wrapper, model, monkeypatch):
        """Gradients with which the optimizer steps."""
        seen = []
        step = wrapper.optimizer.step
        monkeypatch.setattr(
            wrapper.optimizer, 'step', lambda: (seen.append(gradients(model)), step())
        )
        return seen

    def test_steps_with_the_second_gradient(self, monkeypatch):
        model = TinyModel()
        expected, first, clean, perturbed, stats = self.expected(model, batch())
        wrapper = self.wrapped(model)
        seen = self.observe_steps(wrapper, model, monkeypatch)
        model.train_step(batch(), wrapper)
        assert len(seen) == 1
        for name, grad in expected.items():
            torch.testing.assert_close(seen[0][name], grad)
            assert not torch.allclose(seen[0][name], first[name], rtol=1e-2)
        last = wrapper.last_stats
        assert set(last) == {'mean_rho', 'eps_ratio', 'loss', 'perturbed_loss', 'loss_ratio'}
        torch.testing.assert_close(last['loss'], clean)
        torch.testing.assert_close(last['perturbed_loss'], perturbed)
        torch.testing.assert_close(last['loss_ratio'], perturbed / clean)
        torch.testing.assert_close(last['eps_ratio'], stats.ratio)
        assert float(last['mean_rho']) == pytest.approx(0.3)
        assert float(last['loss_ratio']) > 1
        assert all(value.dim() == 0 and not value.requires_grad for value in last.values())

    def test_only_the_second_gradient_is_clipped(self, monkeypatch):
        model = TinyModel()
        expected = self.expected(model, batch())[0]
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in expected.values()]))
        wrapper = self.wrapped(model, clip_grad={'max_norm': float(norm) / 4})
        seen = self.observe_steps(wrapper, model, monkeypatch)
        model.train_step(batch(), wrapper)
        for name, grad in expected.items():
            torch.testing.assert_close(seen[0][name], grad / 4, rtol=1e-4, atol=1e-6)

    def test_accumulation(self, monkeypatch):
        model = TinyModel()
        per_batch = []
        running = copy.deepcopy(model)
        for i in range(2):
            per_batch.append(self.expected(running, batch(i)))
        wrapper = self.wrapped(model, accumulative_counts=2)
        seen = self.observe_steps(wrapper, model, monkeypatch)
        clean = []
        wrapper.add_clean_gradient_observer(lambda: clean.append(gradients(model)))
        for i in range(2):
            model.train_step(batch(i), wrapper)
            assert len(seen) == i
            assert wrapper.inner_count == i + 1
        for name in per_batch[0][0]:
            mean = (per_batch[0][0][name] + per_batch[1][0][name]) / 2
            torch.testing.assert_close(seen[0][name], mean)
            for i in range(2):
                torch.testing.assert_close(clean[i][name], per_batch[i][1][name] / 2)

    @pytest.mark.parametrize('set_to_none', [True, False])
    def test_no_gradient_leaks_into_the_next_step(self, monkeypatch, set_to_none):
        model = TinyModel()
        wrapper = self.wrapped(model)
        seen = self.observe_steps(wrapper, model, monkeypatch)
        for _ in range(2):
            with wrapper.optim_context(model):
                loss = loss_of(model, batch())
            wrapper.update_params(loss, zero_kwargs={'set_to_none': set_to_none})
        for name, grad in seen[0].items():
            assert torch.equal(seen[1][name], grad)

    def test_gradients_are_freed_before_the_second_pass(self):
        model = TinyModel()
        held = []
        model.register_forward_pre_hook(
            lambda *_: held.append(sum(p.grad is not None for p in model.parameters()))
        )
        model.train_step(batch(), self.wrapped(model, AdaptivePerturbation()))
        assert held == [0, 0]

    def test_weights_and_statistics_are_restored(self):
        model, reference = TinyModel(momentum=None), TinyModel(momentum=None)
        wrapper = self.wrapped(model)
        weight = model.conv.weight
        for i in range(3):
            model.train_step(batch(i), wrapper)
            loss_of(reference, batch(i))
        assert_same(model, reference)
        assert int(model.bn.num_batches_tracked) == 3
        assert model.conv.weight is weight

    def test_frozen_batch_norm_and_parameters(self):
        model = TinyModel()
        model.bn.eval().requires_grad_(False)
        model.conv.weight.requires_grad_(False)
        before = copy.deepcopy(model.state_dict())
        wrapper = AdaSAPOptimWrapper(
            optimizer_of(model), perturbation={'type': 'UniformPerturbation', 'rho': 0.5}
        )
        while_moved = {}
        model.fc.register_forward_pre_hook(
            lambda *_: while_moved.update(copy.deepcopy(model.state_dict()))
        )
        model.train_step(batch(), wrapper)
        frozen = [n for n in before if n.startswith('bn') or n == 'conv.weight']
        for name in frozen:
            assert torch.equal(while_moved[name], before[name])
            assert torch.equal(model.state_dict()[name], before[name])
        assert not torch.equal(while_moved['fc.weight'], before['fc.weight'])
        assert not torch.equal(while_moved['conv.bias'], before['conv.bias'])

    def test_random_numbers_are_replayed(self):
        model = TinyModel(dropout=0.5)
        train(model, self.wrapped(model), steps=3)
        plain = TinyModel(dropout=0.5)
        train(plain, OptimWrapper(torch.optim.SGD(plain.parameters(), lr=0.0)), steps=3)
        assert model.draws[0::2] == model.draws[1::2] == plain.draws
        assert len(set(plain.draws)) == 3

    def test_error_in_the_second_pass(self):
        model = TinyModel(fail_at=2)
        reference = TinyModel()
        wrapper = self.wrapped(model)
        torch.manual_seed(5)
        with pytest.raises(FloatingPointError, match='second pass'):
            model.train_step(batch(), wrapper)
        after = torch.rand(1)
        torch.manual_seed(5)
        loss_of(reference, batch())
        assert torch.equal(after, torch.rand(1))
        assert_same(model, reference)
        assert all(param.grad is None for param in model.parameters())
        assert wrapper.inner_count == 0
        model.train_step(batch(1), wrapper)  # and goes on
        assert wrapper.inner_count == 1

    def test_error_in_an_observer_keeps_what_is_accumulated(self):
        model = TinyModel()
        wrapper = self.wrapped(model, accumulative_counts=2)
        model.train_step(batch(), wrapper)
        accumulated = gradients(model)

        def fail():
            raise FloatingPointError

        wrapper.add_clean_gradient_observer(fail)
        with pytest.raises(FloatingPointError):
            model.train_step(batch(1), wrapper)
        for name, grad in gradients(model).items():
            assert torch.equal(grad, accumulated[name])

    @pytest.mark.parametrize('bad', [float('nan'), float('inf')])
    @pytest.mark.parametrize('where', ['loss', 'inputs'])
    def test_loss_that_is_not_finite_moves_nothing(self, bad, where):
        class BadLoss(TinyModel):
            def forward(self, inputs, data_samples=None, mode='tensor'):
                losses = super().forward(inputs, data_samples, mode)
                # A constant: the gradients stay finite and would give a direction.
                losses['loss_bad'] = inputs.new_tensor(bad if where == 'loss' else 0.0)
                return losses

        model = BadLoss().eval()
        data = batch()
        if where == 'inputs':
            data['inputs'][0] = bad
        before = {name: param.detach().clone() for name, param in model.named_parameters()}
        seen = []
        model.fc.register_forward_pre_hook(
            lambda *_: seen.append({n: p.detach().clone() for n, p in model.named_parameters()})
        )
        wrapper = self.wrapped(model)
        with wrapper.optim_context(model):
            loss = loss_of(model, data)
        wrapper.optimizer.step = lambda: None
        wrapper.update_params(loss)
        assert len(seen) == 2
        for name, param in before.items():
            assert torch.equal(seen[1][name], param)

    def test_masked_channels(self, monkeypatch):
        model = TinyModel()
        kept = torch.tensor([True, False, True, True, False, True])
        perturbation = AdaptivePerturbation(0.1, 0.4)
        perturbation.keep = {'conv.weight': kept}
        wrapper = self.wrapped(model, perturbation)
        seen = []
        model.bn.register_forward_pre_hook(lambda *_: seen.append(model.conv.weight.clone()))
        model.train_step(batch(), wrapper)
        clean, perturbed = seen
        changed = (clean != perturbed).flatten(1).any(1)
        assert torch.equal(changed, kept)

    def test_samples_that_the_model_changes(self):
        model = TinyModel()
        data = batch()
        target = data['data_samples'][0].target.clone()
        wrapper = self.wrapped(model, UniformPerturbation(0.0))
        model.train_step(data, wrapper)
        # Doubled by the first pass alone, and the second has seen the original: equal losses.
        torch.testing.assert_close(data['data_samples'][0].target, 2 * target)
        assert float(wrapper.last_stats['loss_ratio']) == 1

    def test_model_that_returns_its_loss(self):
        class Plain(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(2, 1)

            def forward(self, x):
                return self.fc(x).square().mean()

        model = Plain()
        wrapper = self.wrapped(model)
        with wrapper.optim_context(model):
            loss = model(torch.ones(3, 2))
        wrapper.update_params(loss)
        assert float(wrapper.last_stats['loss_ratio']) > 1


class TestForward:
    def test_none_in_the_context(self):
        model = TinyModel()
        wrapper = AdaSAPOptimWrapper(optimizer_of(model), perturbation=UniformPerturbation())
        with pytest.raises(RuntimeError, match='has not seen the forward pass'):
            wrapper.update_params(loss_of(model, batch()))
        with wrapper.optim_context(model):
            pass
        with pytest.raises(RuntimeError, match='has not seen the forward pass'):
            wrapper.update_params(loss_of(model, batch()))

    def test_two_in_the_context(self):
        model = TinyModel()
        wrapper = AdaSAPOptimWrapper(optimizer_of(model), perturbation=UniformPerturbation())

        def step():
            with wrapper.optim_context(model):
                loss_of(model, batch())
                loss_of(model, batch())

        with pytest.raises(RuntimeError, match='more than once'):
            step()
        loss_of(model, batch())
        assert not model._forward_pre_hooks


class TestPerturbationProperty:
    def test_built_through_mmengine(self):
        model = TinyModel()
        cfg = {
            'type': 'AdaSAPOptimWrapper',
            'optimizer': {'type': 'SGD', 'lr': 0.1},
            'perturbation': {'type': 'AdaptivePerturbation', 'rho_max': 0.2},
        }
        wrapper = build_optim_wrapper(model, cfg)
        assert type(wrapper) is AdaSAPOptimWrapper
        assert wrapper.perturbation.rho_max == 0.2

    def test_set_between_steps(self):
        model = TinyModel()
        wrapper = AdaSAPOptimWrapper(optimizer_of(model))
        calls = []
        for perturbation in (None, AdaptivePerturbation(), UniformPerturbation(), None):
            wrapper.perturbation = perturbation
            model.calls = 0
            model.train_step(batch(), wrapper)
            calls.append(model.calls)
            assert (wrapper.last_stats is None) == (perturbation is None)
        assert calls == [1, 2, 2, 1]

    def test_another_model(self):
        first, second = TinyModel(), TinyModel()
        wrapper = AdaSAPOptimWrapper(optimizer_of(second), perturbation=UniformPerturbation(0.5))
        first.train_step(batch(), wrapper)
        second.train_step(batch(), wrapper)
        assert float(wrapper.last_stats['loss_ratio']) > 1

    def test_error_names_the_key(self):
        model = TinyModel()
        with pytest.raises(ValueError, match=r'perturbation\.rho=-1 must be'):
            AdaSAPOptimWrapper(
                optimizer_of(model), perturbation={'type': 'UniformPerturbation', 'rho': -1}
            )


class TestObserver:
    @pytest.mark.parametrize('perturbation', [None, UniformPerturbation(0.3)])
    @pytest.mark.parametrize('counts', [1, 2])
    def test_sees_the_clean_gradient_of_each_micro_batch(self, perturbation, counts):
        model = TinyModel().eval()
        wrapper = AdaSAPOptimWrapper(
            torch.optim.SGD(model.parameters(), lr=0.0),
            accumulative_counts=counts,
            perturbation=perturbation,
        )
        seen = []

        def observer():
            seen.append(gradients(model))

        wrapper.add_clean_gradient_observer(observer)
        for i in range(4):
            model.train_step(batch(i), wrapper)
        wrapper.remove_clean_gradient_observer(observer)
        model.train_step(batch(), wrapper)
        assert len(seen) == 4
        for i in range(4):
            model.zero_grad()
            (loss_of(model, batch(i)) / counts).backward()
            for name, grad in gradients(model).items():
                torch.testing.assert_close(seen[i][name], grad)

    def test_any_wrapper_shows_the_same(self):
        """Also one that overrides ``update_params``; without an observer it is as before."""

        class CountingWrapper(OptimWrapper):
            updates = 0

            def update_params(self, *args, **kwargs):
                self.updates += 1
                super().update_params(*args, **kwargs)

        seen, models = [], []
        for cls in (AdaSAPOptimWrapper, CountingWrapper):
            model = TinyModel()
            wrapper = cls(optimizer_of(model), accumulative_counts=3, clip_grad={'max_norm': 0.1})
            before = type(wrapper)
            seen.append([])
            observer = partial(
                lambda found, model: found.append(gradients(model)), seen[-1], model
            )
            model.train_step(batch(), wrapper)
            observe_clean_gradients(wrapper, observer)
            assert isinstance(wrapper, before)
            assert type(wrapper).__name__ == before.__name__
            for i in range(1, 7):
                model.train_step(batch(i), wrapper)
            wrapper.remove_clean_gradient_observer(observer)
            assert [wrapper.should_sync() for _ in range(2)] == [False, False]
            model.train_step(batch(7), wrapper)
            models.append(model)
        assert wrapper.updates == 8
        assert_same(*models)
        assert len(seen[0]) == len(seen[1]) == 6
        for left, right in zip(*seen, strict=True):
            assert left.keys() == right.keys()
            for name in left:
                assert torch.equal(left[name], right[name]), name

    def test_unknown_observer(self):
        wrapper = AdaSAPOptimWrapper(optimizer_of(TinyModel()))
        with pytest.raises(ValueError, match='not in list'):
            wrapper.remove_clean_gradient_observer(print)

    def test_changes_nothing_without_a_perturbation(self):
        models = []
        for observed in (False, True):
            model = TinyModel()
            wrapper = AdaSAPOptimWrapper(optimizer_of(model), accumulative_counts=3)
            if observed:
                wrapper.add_clean_gradient_observer(lambda: None)
            train(model, wrapper)
            models.append(model)
        assert_same(*models)


@pytest.mark.parametrize('given', ['nothing', 'perturbation', 'none by the hook'])
def test_warns_where_nothing_gives_a_perturbation(given, caplog):
    """As where AdaSAPHook was forgotten: it would train as plain SGD without a word."""
    MMLogger.get_instance(f'given_{given.replace(" ", "_")}').addHandler(caplog.handler)
    model = TinyModel()
    perturbation = dict(type='UniformPerturbation') if given == 'perturbation' else None
    wrapper = AdaSAPOptimWrapper(optimizer_of(model), perturbation=perturbation)
    if given == 'none by the hook':
        wrapper.perturbation = None
    for i in range(2):
        model.train_step(batch(i), wrapper)
    assert caplog.text.count('no AdaSAPHook sets one') == (given == 'nothing')
