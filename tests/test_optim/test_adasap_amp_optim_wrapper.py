# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
from contextlib import nullcontext

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper

from _utils.two_pass import (
    TinyModel,
    assert_same,
    batch,
    gradients,
    loss_of,
    needs_scaler,
    optimizer_of,
    train,
)
from mmdet_adasap.optim import AdaSAPAmpOptimWrapper, AdaSAPOptimWrapper
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation

STEPS = 12
RHO = 0.3
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def autocast():
    return torch.autocast('cpu', dtype=torch.bfloat16)


class HalfGradient(torch.autograd.Function):
    """Nothing forwards; backwards what float16 can hold, or an inf where one is asked for."""

    @staticmethod
    def forward(ctx, x, is_bad):
        ctx.is_bad = is_bad
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.half().to(grad.dtype)
        return grad + float('inf') if ctx.is_bad else grad, None


class Overflowing(TinyModel):
    """Gradients overflow as in float16, and in the forward calls (from 1) that ``bad`` names."""

    def __init__(self, bad=(), **kwargs):
        super().__init__(**kwargs)
        self.bad = bad

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = super().forward(inputs, data_samples, mode)
        return {k: HalfGradient.apply(v, self.calls in self.bad) for k, v in out.items()}


class Scaling:
    """The rule of GradScaler, written down once more."""

    def __init__(self, scale, interval=2000):
        self.scale, self.interval, self.good = scale, interval, 0

    def update(self, overflow):
        self.good = 0 if overflow else self.good + 1
        if overflow:
            self.scale /= 2
        elif self.good == self.interval:
            self.scale, self.good = self.scale * 2, 0


class NoScaling:
    """As in bfloat16."""

    scale = 1.0

    def update(self, overflow):
        pass


def is_finite(gradients):
    return all(bool(g.isfinite().all()) for g in gradients)


def pass_by_hand(model, data, factor):
    """Loss of a pass under autocast, and the gradients of ``factor`` times it."""
    with autocast():
        losses = model(**copy.deepcopy(data), mode='loss')
    loss = model.parse_losses(losses)[0]
    return loss.detach(), torch.autograd.grad(loss * factor, list(model.parameters()))


def train_by_hand(model, rho, scaling=None, counts=1, max_norm=None, steps=STEPS):
    """SAM (global norm) with mixed precision and loss scaling.

    Returns the scales after each step, and which steps were skipped.
    """
    params, optimizer = list(model.parameters()), optimizer_of(model)
    scaling = scaling or Scaling(1.0)
    scales, skipped = [], []
    sums, overflow = None, False
    for i in range(steps):
        start = [p.detach().clone() for p in params]
        _, first = pass_by_hand(model, batch(i), scaling.scale / counts)
        statistics = copy.deepcopy(model.bn.state_dict())
        clean = is_finite(first)
        if clean and rho:
            first = [g / scaling.scale for g in first]
            norm = torch.cat([g.flatten() for g in first]).norm()
            with torch.no_grad():
                for p, g in zip(params, first, strict=True):
                    p.add_(rho * g / norm)
        _, second = pass_by_hand(model, batch(i), scaling.scale / counts)
        model.bn.load_state_dict(statistics)
        with torch.no_grad():
            for p, w in zip(params, start, strict=True):
                p.copy_(w)
        sums = second if sums is None else [a + b for a, b in zip(sums, second, strict=True)]
        overflow = overflow or not clean or not is_finite(second)
        if (i + 1) % counts == 0 or i + 1 == steps:
            if not overflow:
                for p, g in zip(params, sums, strict=True):
                    p.grad = g / scaling.scale
                if max_norm:
                    torch.nn.utils.clip_grad_norm_(params, max_norm)
                optimizer.step()
            scaling.update(overflow)
            skipped.append(overflow)
            sums, overflow = None, False
        scales.append(scaling.scale)
    return scales, skipped


def wrapped(model, perturbation=None, cls=AdaSAPAmpOptimWrapper, optimizer=None, **kwargs):
    if perturbation is not None:
        kwargs['perturbation'] = perturbation
    return cls(optimizer=optimizer or optimizer_of(model), **kwargs)


def assert_close(model, reference):
    state, expected = model.state_dict(), reference.state_dict()
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], rtol=1e-6, atol=1e-6, msg=name)


class TestOnePass:
    @pytest.mark.parametrize('counts', [1, 3])
    @pytest.mark.parametrize('scale', [None, 1024.0])
    @pytest.mark.parametrize('perturbation', [None, UniformPerturbation(0.0)])
    def test_equals_plain_autocast_training(self, counts, scale, perturbation):
        """To the bit, also where a loss that is scaled by a power of two says the same."""
        model = TinyModel(dropout=0.3)
        extra = {} if scale is None else {'loss_scale': scale}
        wrapper = wrapped(
            model,
            perturbation,
            accumulative_counts=counts,
            clip_grad={'max_norm': 0.5},
            **extra,
        )
        train(model, wrapper, STEPS)

        class Plain(OptimWrapper):
            def optim_context(self, model):
                return autocast()

        reference = TinyModel(dropout=0.3)
        plain = Plain(
            optimizer_of(reference), accumulative_counts=counts, clip_grad={'max_norm': 0.5}
        )
        train(reference, plain, STEPS)
        assert_same(model, reference)
        in_float32 = TinyModel(dropout=0.3)
        train(in_float32, OptimWrapper(optimizer_of(in_float32)), STEPS)
        assert not torch.equal(in_float32.fc.weight, model.fc.weight)

    @needs_scaler
    def test_skips_and_scales_as_grad_scaler_does(self):
        model, reference = Overflowing(bad={6, 7}), Overflowing(bad={6, 7})
        wrapper = wrapped(model, loss_scale={'init_scale': 2.0**22, 'growth_interval': 3})
        scaler = torch.amp.GradScaler('cpu', init_scale=2.0**22, growth_interval=3)
        optimizer = optimizer_of(reference)
        for i in range(20):
            model.train_step(batch(i), wrapper)
            with autocast():
                losses = reference(**batch(i), mode='loss')
            scaler.scale(reference.parse_losses(losses)[0]).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            assert wrapper.loss_scaler.state_dict() == scaler.state_dict()
        assert_same(model, reference)
        assert scaler.get_scale() != 2.0**22


class TestTwoPasses:
    @pytest.mark.parametrize('counts', [1, 2, 5])
    @pytest.mark.parametrize('max_norm', [None, 0.5])
    def test_without_a_scaler(self, counts, max_norm):
        model, reference = TinyModel(), TinyModel()
        clip = max_norm and {'max_norm': max_norm}
        wrapper = wrapped(
            model, UniformPerturbation(RHO), accumulative_counts=counts, clip_grad=clip
        )
        wrapper.initialize_count_status(model, 0, STEPS - STEPS % counts)
        steps = STEPS - STEPS % counts
        train(model, wrapper, steps)
        train_by_hand(reference, RHO, counts=counts, max_norm=max_norm, steps=steps)
        assert wrapper.loss_scaler is None
        assert_close(model, reference)
        one_pass = TinyModel()
        train_by_hand(one_pass, 0.0, counts=counts, max_norm=max_norm, steps=steps)
        assert not torch.allclose(one_pass.fc.weight, model.fc.weight, atol=1e-4)

    # The second call is the second pass of the first step; steps 3 and 4 fail in both.
    BAD = [(), (3,), (4,), (5, 6, 7, 8), (1, 2, 15), (3, 20)]

    @pytest.mark.long
    @pytest.mark.parametrize('bad', BAD, ids=str)
    @pytest.mark.parametrize('counts', [1, 2])
    @pytest.mark.parametrize('max_norm', [None, 0.5])
    @pytest.mark.parametrize('scaled', [pytest.param(True, marks=needs_scaler), False])
    def test_overflow(self, bad, counts, max_norm, scaled):
        model, reference = Overflowing(bad), Overflowing(bad)
        interval = 3
        by_hand = Scaling(64.0, interval) if scaled else NoScaling()
        scaling = {'loss_scale': {'init_scale': 64.0, 'growth_interval': interval}}
        wrapper = wrapped(
            model,
            UniformPerturbation(RHO),
            accumulative_counts=counts,
            clip_grad=max_norm and {'max_norm': max_norm},
            **(scaling if scaled else {}),
        )
        wrapper.initialize_count_status(model, 0, STEPS)
        scales, stats = [], []
        for i in range(STEPS):
            before = {n: p.detach().clone() for n, p in model.named_parameters()}
            steps = [s['momentum_buffer'].clone() for s in wrapper.optimizer.state.values()]
            model.train_step(batch(i), wrapper)
            scales.append(wrapper.loss_scaler.get_scale() if scaled else 1.0)
            stats.append(wrapper.last_stats)
            if (i + 1) % counts == 0 and {2 * i + 1, 2 * i + 2} & set(bad):
                for name, p in model.named_parameters():
                    assert torch.equal(p, before[name])
                after = [s['momentum_buffer'] for s in wrapper.optimizer.state.values()]
                assert all(map(torch.equal, steps, after))
        expected, skipped = train_by_hand(reference, RHO, by_hand, counts, max_norm)
        assert scales == expected
        assert sum(skipped) == len({(call - 1) // (2 * counts) for call in bad})
        assert_close(model, reference)
        assert int(model.bn.num_batches_tracked) == STEPS
        for i, last in enumerate(stats):
            assert all(bool(value.isfinite()) for value in last.values())
            assert (float(last['eps_ratio']) == 0) == (2 * i + 1 in bad)
            assert (float(last['loss_ratio']) == 1) == (2 * i + 1 in bad)

    @needs_scaler
    def test_scale_that_is_too_large_comes_down_by_itself(self):
        model, reference = Overflowing(), Overflowing()
        wrapper = wrapped(model, UniformPerturbation(RHO), loss_scale={'init_scale': 2.0**24})
        train(model, wrapper, 20)
        scales, skipped = train_by_hand(reference, RHO, Scaling(2.0**24), steps=20)
        assert 2 < sum(skipped) < 18
        assert wrapper.loss_scaler.get_scale() == scales[-1]
        assert_close(model, reference)

    def test_overflow_of_the_clean_pass_alone_moves_nothing(self):
        """Not even where the second pass, at the same weights, is fine."""
        model = Overflowing(bad={1})
        seen = []
        model.fc.register_forward_pre_hook(lambda *_: seen.append(model.fc.weight.clone()))
        wrapper = wrapped(model, AdaptivePerturbation(), loss_scale=8.0)
        model.train_step(batch(), wrapper)
        assert torch.equal(*seen)
        assert not wrapper.optimizer.state
        assert all(param.grad is None for param in model.parameters())
        model.train_step(batch(1), wrapper)
        assert not torch.equal(seen[2], seen[3])
        assert wrapper.optimizer.state

    @pytest.mark.parametrize('asam', [False, True])
    def test_eps_does_not_depend_on_the_scale(self, asam):
        """Nor does its norm overflow: squares of these gradients are beyond float32."""
        results = []
        for scale in (1.0, 2.0**100):
            model = TinyModel()
            perturbation = UniformPerturbation(RHO, asam=asam)
            wrapper = wrapped(model, perturbation, loss_scale=scale)
            model.train_step(batch(), wrapper)
            results.append((model, wrapper.last_stats))
        assert_same(results[1][0], results[0][0])
        assert results[0][1] == results[1][1]
        assert float(results[0][1]['eps_ratio']) > 0

    @needs_scaler
    def test_fixed_scale_stays(self):
        model = Overflowing(bad={1, 2})
        wrapper = wrapped(model, UniformPerturbation(RHO), loss_scale=512)
        train(model, wrapper, 4)
        assert wrapper.loss_scaler.get_scale() == 512

    @pytest.mark.parametrize('cls', [AdaSAPOptimWrapper, AdaSAPAmpOptimWrapper])
    @pytest.mark.parametrize('perturbation', [AdaptivePerturbation(), UniformPerturbation(RHO)])
    def test_second_pass_does_not_use_casts_of_the_first(self, cls, perturbation):
        """An autocast around the whole step keeps its casts until it ends."""
        results = []
        for around, used in ((nullcontext, AdaSAPAmpOptimWrapper), (autocast, cls)):
            model = TinyModel()
            wrapper = wrapped(model, perturbation, used)
            stats = []
            for i in range(3):
                with around():
                    model.train_step(batch(i), wrapper)
                stats.append(wrapper.last_stats)
            results.append((model, stats))
        assert results[0][1] == results[1][1]
        assert_same(results[1][0], results[0][0])

    def test_losses_are_summed_outside_of_autocast(self):
        """In both passes: mmengine's train_step does so in the first."""

        class Recording(TinyModel):
            def parse_losses(self, losses):
                dtypes.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
                return super().parse_losses(losses)

        dtypes = []
        model = Recording()
        model.train_step(batch(), wrapped(model, UniformPerturbation(RHO)))
        assert dtypes == [torch.float32] * 2

    def test_casts_of_moved_weights_are_not_left_behind(self):
        model = TinyModel().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        wrapper = wrapped(model, UniformPerturbation(RHO), optimizer=optimizer)
        with autocast():
            losses = []
            for _ in range(2):
                model.train_step(batch(), wrapper)
                losses.append(wrapper.last_stats['loss'])
        assert torch.equal(*losses)


class TestObserver:
    @pytest.mark.parametrize('perturbation', [None, UniformPerturbation(RHO)])
    @pytest.mark.parametrize('counts', [1, 2])
    @pytest.mark.parametrize('scale', ['dynamic', 1024.0])
    def test_sees_gradients_without_the_scale(self, perturbation, counts, scale):
        model = TinyModel().eval()
        wrapper = wrapped(
            model,
            perturbation,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            accumulative_counts=counts,
            loss_scale=scale,
        )
        seen = []
        wrapper.add_clean_gradient_observer(lambda: seen.append(gradients(model)))
        for i in range(4):
            model.train_step(batch(i), wrapper)
        assert len(seen) == 4
        for i in range(4):
            _, expected = pass_by_hand(model, batch(i), 1 / counts)
            for (name, grad), right in zip(seen[i].items(), expected, strict=True):
                assert torch.equal(grad, right), name

    @pytest.mark.parametrize(
        ('perturbation', 'bad'), [(None, {2, 3}), (UniformPerturbation(RHO), {3, 5, 6, 8})]
    )
    @pytest.mark.parametrize('scale', ['dynamic', 1024.0])
    def test_sees_nothing_of_a_pass_that_overflows(self, perturbation, bad, scale):
        model = Overflowing(bad)
        wrapper = wrapped(model, perturbation, loss_scale=scale)
        wrapper.optimizer.step = lambda: None  # without a scaler it would step into NaN
        seen = []
        wrapper.add_clean_gradient_observer(
            lambda: seen.append((model.calls, is_finite(gradients(model).values())))
        )
        for i in range(4):
            model.train_step(batch(i), wrapper)
        # The gradient of the second pass of step 4, the eighth call, is no clean one.
        calls = [1, 4] if perturbation is None else [1, 7]
        assert seen == [(call, True) for call in calls]

    @pytest.mark.parametrize('counts', [1, 3])
    def test_changes_nothing(self, counts):
        """The scale is no power of two, so that dividing by it and back would show."""
        models = []
        for observed in (False, True):
            model = TinyModel()
            wrapper = wrapped(model, loss_scale=1000.0, accumulative_counts=counts)
            if observed:
                wrapper.add_clean_gradient_observer(lambda: None)
            train(model, wrapper)
            models.append(model)
        assert_same(*models)

    def test_error_in_an_observer_keeps_what_is_accumulated(self):
        model = TinyModel()
        wrapper = wrapped(model, accumulative_counts=2, loss_scale=1024.0)
        model.train_step(batch(), wrapper)
        accumulated = gradients(model)

        def fail():
            raise FloatingPointError

        wrapper.add_clean_gradient_observer(fail)
        with pytest.raises(FloatingPointError):
            model.train_step(batch(1), wrapper)
        for name, grad in gradients(model).items():
            assert torch.equal(grad, accumulated[name])


class TestState:
    def run(self, model, wrapper, steps):
        for i in steps:
            model.train_step(batch(i), wrapper)

    @needs_scaler
    def test_resumed_run_equals_the_whole_one(self):
        # A scale that grows within the second half, by steps counted in the first.
        settings = {'loss_scale': {'init_scale': 64.0, 'growth_interval': 4}}
        bad = {3}
        whole = Overflowing(bad)
        wrapper = wrapped(whole, UniformPerturbation(RHO), **settings)
        self.run(whole, wrapper, range(STEPS))
        first = Overflowing(bad)
        stopped = wrapped(first, UniformPerturbation(RHO), **settings)
        self.run(first, stopped, range(5))
        state = copy.deepcopy(stopped.state_dict())
        second = Overflowing(bad)
        second.load_state_dict(first.state_dict())
        second.calls = first.calls
        resumed = wrapped(second, UniformPerturbation(RHO), **settings)
        resumed.load_state_dict(state)
        self.run(second, resumed, range(5, STEPS))
        assert_same(second, whole)
        assert resumed.loss_scaler.state_dict() == wrapper.loss_scaler.state_dict()
        assert wrapper.loss_scaler.get_scale() == 128
        assert 'loss_scaler' in state  # loading leaves the checkpoint whole

    @needs_scaler
    def test_key_is_that_of_amp_optim_wrapper(self):
        model = TinyModel()
        assert wrapped(model, loss_scale=8.0).state_dict()['loss_scaler']['scale'] == 8.0
        assert 'loss_scaler' not in wrapped(model).state_dict()

    @needs_scaler
    def test_checkpoints_of_other_wrappers(self):
        model = TinyModel()
        plain = OptimWrapper(optimizer_of(model))
        train(model, plain, 3)
        scaler = torch.amp.GradScaler('cpu', init_scale=256.0).state_dict()
        for extra in ({}, {'loss_scaler': scaler}, {'loss_scaler': {}}):
            state = copy.deepcopy(plain.state_dict()) | copy.deepcopy(extra)
            scaled = wrapped(model, loss_scale={'init_scale': 8.0})
            scaled.load_state_dict(state)
            assert scaled.loss_scaler.get_scale() == (256 if extra.get('loss_scaler') else 8)
            unscaled = wrapped(model)
            unscaled.load_state_dict(state)
            single = AdaSAPOptimWrapper(optimizer_of(model))
            single.load_state_dict(state)
            for wrapper in (scaled, unscaled, single):
                momenta = [s['momentum_buffer'] for s in wrapper.optimizer.state.values()]
                expected = [s['momentum_buffer'] for s in plain.optimizer.state.values()]
                assert all(map(torch.equal, momenta, expected))


class TestSettings:
    def test_built_through_mmengine(self):
        model = TinyModel()
        cfg = {
            'type': 'AdaSAPAmpOptimWrapper',
            'optimizer': {'type': 'SGD', 'lr': 0.1},
            'perturbation': {'type': 'AdaptivePerturbation', 'rho_max': 0.2},
        }
        wrapper = build_optim_wrapper(model, cfg)
        assert type(wrapper) is AdaSAPAmpOptimWrapper
        assert wrapper.perturbation.rho_max == 0.2
        assert wrapper.cast_dtype is torch.bfloat16  # on a CPU
        assert wrapper.loss_scaler is None

    @pytest.mark.parametrize('dtype', ['bfloat16', torch.bfloat16])
    @pytest.mark.parametrize('loss_scale', ['dynamic', {'enabled': False}])
    def test_bfloat16_needs_no_scaler(self, dtype, loss_scale):
        wrapper = wrapped(TinyModel(), dtype=dtype, loss_scale=loss_scale)
        assert wrapper.cast_dtype is torch.bfloat16
        assert wrapper.loss_scaler is None

    @pytest.mark.parametrize(
        ('settings', 'message'),
        [
            ({'dtype': 'float16'}, r"dtype='float16' needs a GPU.* write dtype='bfloat16'$"),
            ({'dtype': torch.float16}, r'dtype=torch.float16 needs a GPU'),
            ({'dtype': 'float32'}, r"dtype='float32' is unknown; use 'bfloat16' or 'float16'"),
            ({'dtype': torch.float64}, r'dtype=torch.float64 is unknown'),
            ({'dtype': 16}, r'dtype=16 is unknown'),
            ({'dtype': ['float16']}, r"dtype=\['float16'\] is unknown"),
            ({'loss_scale': 'static'}, r"loss_scale='static' must be 'dynamic', a number"),
            ({'loss_scale': 0}, r'loss_scale=0 must be'),
            ({'loss_scale': -2.0}, r'loss_scale=-2.0 must be'),
            ({'loss_scale': float('inf')}, r'loss_scale=inf must be'),
            ({'loss_scale': float('nan')}, r'loss_scale=nan must be'),
            ({'loss_scale': True}, r'loss_scale=True must be'),
            ({'loss_scale': None}, r'loss_scale=None must be'),
            ({'loss_scale': {'scale': 2.0}}, r"loss_scale={'scale': 2.0} does not suit"),
            pytest.param(
                {'loss_scale': {'growth_factor': 0.5}},
                r'loss_scale={.* does not suit GradScaler',
                marks=needs_scaler,
            ),
        ],
    )
    def test_errors_name_the_key(self, settings, message):
        with pytest.raises(ValueError, match=rf'^optim_wrapper\.{message}'):
            wrapped(TinyModel(), **settings)


@needs_gpu
class TestOnAGPU:
    """Real float16; what the CPU's tests drive with bfloat16 and forced infs."""

    SETTINGS = {'init_scale': 2.0**20, 'growth_interval': 3}

    def run(self, cls, perturbation=None, steps=20, model=None, **kwargs):
        model = (model or TinyModel()).cuda()
        wrapper = wrapped(model, perturbation, cls, **kwargs)
        for i in range(steps):
            model.train_step(self.batch(i), wrapper)
        return model, wrapper

    def batch(self, i):
        data = batch(i)
        data['inputs'] = data['inputs'].cuda()
        for sample in data['data_samples']:
            sample.target = sample.target.cuda()
        return data

    @pytest.mark.parametrize('dtype', ['float16', 'bfloat16', None])
    @pytest.mark.parametrize('counts', [1, 2])
    @pytest.mark.parametrize('clip', [None, 0.5])
    def test_one_pass_equals_amp_optim_wrapper(self, dtype, counts, clip):
        settings = {
            'dtype': dtype,
            'loss_scale': self.SETTINGS,
            'accumulative_counts': counts,
        }
        pair = [
            self.run(cls, clip_grad=clip and {'max_norm': clip}, **copy.deepcopy(settings))
            for cls in (AdaSAPAmpOptimWrapper, AmpOptimWrapper)
        ]
        assert_close(pair[0][0], pair[1][0])
        assert pair[0][1].loss_scaler.state_dict() == pair[1][1].loss_scaler.state_dict()

    def test_default_is_float16_with_a_scaler(self):
        wrapper = wrapped(TinyModel().cuda())
        assert wrapper.cast_dtype is torch.float16
        assert wrapper.loss_scaler.get_scale() == 65536

    @pytest.mark.parametrize('perturbation', [UniformPerturbation(0.05), AdaptivePerturbation()])
    def test_two_passes_follow_float32(self, perturbation):
        half, wrapper = self.run(AdaSAPAmpOptimWrapper, perturbation, 3, dtype='float16')
        single, _ = self.run(AdaSAPOptimWrapper, perturbation, 3)
        for name, param in half.named_parameters():
            expected = dict(single.named_parameters())[name]
            torch.testing.assert_close(param, expected, rtol=0.05, atol=0.02)
        assert float(wrapper.last_stats['eps_ratio']) > 0

    def test_scale_that_is_too_large_comes_down(self):
        model, wrapper = self.run(
            AdaSAPAmpOptimWrapper,
            UniformPerturbation(RHO),
            dtype='float16',
            loss_scale={'init_scale': 2.0**40},
            steps=40,
        )
        assert wrapper.loss_scaler.get_scale() < 2.0**30
        assert wrapper.optimizer.state
        assert all(bool(p.isfinite().all()) for p in model.parameters())

    @pytest.mark.parametrize('bad', [(3,), (4,), (5, 6)], ids=str)
    def test_overflow(self, bad):
        model = Overflowing(bad).cuda()
        wrapper = wrapped(
            model, UniformPerturbation(RHO), dtype='float16', loss_scale={'init_scale': 64.0}
        )
        for i in range(4):
            before = [p.detach().clone() for p in model.parameters()]
            model.train_step(self.batch(i), wrapper)
            same = all(map(torch.equal, before, model.parameters()))
            assert same == bool({2 * i + 1, 2 * i + 2} & set(bad))
        assert wrapper.loss_scaler.get_scale() == 32

    def test_resume(self):
        perturbation = UniformPerturbation(RHO)
        settings = {'dtype': 'float16', 'loss_scale': self.SETTINGS}
        whole, wrapper = self.run(AdaSAPAmpOptimWrapper, perturbation, **settings)
        first, stopped = self.run(AdaSAPAmpOptimWrapper, perturbation, steps=8, **settings)
        resumed = wrapped(first, perturbation, **settings)
        resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
        for i in range(8, 20):
            first.train_step(self.batch(i), resumed)
        assert_close(first, whole)
        assert resumed.loss_scaler.state_dict() == wrapper.loss_scaler.state_dict()

    def test_observer(self):
        model = TinyModel().cuda().eval()
        wrapper = wrapped(
            model,
            UniformPerturbation(RHO),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            dtype='float16',
        )
        seen = []
        wrapper.add_clean_gradient_observer(lambda: seen.append(gradients(model)))
        model.train_step(self.batch(0), wrapper)
        model.zero_grad()
        loss_of(model, self.batch(0)).backward()
        for name, grad in gradients(model).items():
            torch.testing.assert_close(seen[0][name], grad, rtol=0.05, atol=0.01)
