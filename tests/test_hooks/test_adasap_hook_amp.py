# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""AdaSAPHook under mixed precision: three phases, resuming, and what ``--amp`` ends in."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from _utils.adasap_runs import assert_same_weights, build, kill_after, train, watch
from _utils.toy import ToyModel, settings
from _utils.two_pass import needs_scaler
from mmdet_adasap.optim import AdaSAPAmpOptimWrapper

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
TAYLOR = dict(importance=dict(type='TaylorImportance'))


@pytest.fixture(autouse=True)
def on_the_cpu(request, monkeypatch):
    """Where there is a GPU, mmengine would put the model on it."""
    if 'gpu' not in request.node.name:
        monkeypatch.setattr('mmengine.runner.runner.get_device', lambda: 'cpu')


def amp_settings(work_dir, hook=None, **wrapper):
    cfg = settings(work_dir, hook=hook)
    cfg['optim_wrapper'].update(type='AdaSAPAmpOptimWrapper', **wrapper)
    return cfg


SCALED = dict(loss_scale=dict(init_scale=256.0, growth_interval=5))


class TestThreePhases:
    @pytest.mark.parametrize('hook', [None, TAYLOR], ids=['magnitude', 'taylor'])
    def test_run_ends_slim_on_target(self, tmp_path, hook):
        runner = build(amp_settings(tmp_path, hook=hook))
        kinds = set()
        runner.model.fc.register_forward_hook(
            lambda module, args, out: kinds.add((module.training, out.dtype))
        )
        runner.train()
        # Training under autocast; validation and the proof of the cut in float32.
        assert kinds == {(True, torch.bfloat16), (False, torch.float32)}
        dense = sum(p.numel() for p in ToyModel().parameters())
        assert 0.38 * dense < sum(p.numel() for p in runner.model.parameters()) <= 0.4 * dense
        single = train(settings(tmp_path / 'single', hook=hook))
        assert not torch.equal(single.model.head.bias, runner.model.head.bias)

    # In each phase, and between two pruning events.
    @pytest.mark.long
    @pytest.mark.parametrize('killed_at', [4, 8, 13, 19, 31])
    @pytest.mark.parametrize(
        'scaling',
        [pytest.param({}, id='unscaled'), pytest.param(SCALED, id='scaled', marks=needs_scaler)],
    )
    def test_resume(self, tmp_path, killed_at, scaling):
        whole = train(amp_settings(tmp_path / 'whole', hook=TAYLOR, **scaling))
        cfg = amp_settings(tmp_path / 'parts', hook=TAYLOR, **scaling)
        kill_after(cfg, killed_at)
        resumed = train(cfg | dict(resume=True))
        assert_same_weights(resumed.model, whole.model)
        if scaling:
            states = [run.optim_wrapper.loss_scaler.state_dict() for run in (resumed, whole)]
            assert states[0] == states[1]
            assert states[0]['scale'] > 256

    @pytest.mark.long
    @pytest.mark.parametrize('counts', [1, 3])
    def test_scale_does_not_change_what_is_pruned(self, tmp_path, counts):
        runs = [
            train(
                amp_settings(
                    tmp_path / str(scale),
                    hook=TAYLOR | dict(perturbation=perturbation),
                    loss_scale=scale,
                    accumulative_counts=counts,
                )
            )
            for perturbation in (None, dict(type='AdaptivePerturbation'))
            for scale in ('dynamic', 4096.0)
        ]
        assert_same_weights(runs[0].model, runs[1].model, atol=0)
        assert_same_weights(runs[2].model, runs[3].model, atol=0)

    @needs_scaler
    def test_overflow_within_the_run(self, tmp_path):
        """A scale that is far too large: steps are skipped until it fits, masks stay."""
        cfg = amp_settings(tmp_path, hook=TAYLOR, loss_scale=dict(init_scale=2.0**26))
        runner = build(cfg)

        def narrow(module, args, out):  # to what float16 can hold
            if out.requires_grad:
                out.register_hook(lambda grad: grad.half().to(grad.dtype))

        runner.model.head.register_forward_hook(narrow)
        scales = []
        watch(
            runner,
            after_train_iter=lambda *_, **__: scales.append(
                runner.optim_wrapper.loss_scaler.get_scale()
            ),
        )
        runner.train()
        assert 2.0**8 < scales[-1] < 2.0**25
        assert all(bool(p.isfinite().all()) for p in runner.model.parameters())
        dense = sum(p.numel() for p in ToyModel().parameters())
        assert sum(p.numel() for p in runner.model.parameters()) <= 0.4 * dense

    @needs_gpu
    @pytest.mark.parametrize('killed_at', [4, 13, 31])
    @pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
    def test_resume_on_a_gpu(self, tmp_path, killed_at, dtype):
        whole = train(amp_settings(tmp_path / 'whole', hook=TAYLOR, dtype=dtype))
        assert isinstance(whole.optim_wrapper, AdaSAPAmpOptimWrapper)
        cfg = amp_settings(tmp_path / 'parts', hook=TAYLOR, dtype=dtype)
        kill_after(cfg, killed_at)
        assert_same_weights(train(cfg | dict(resume=True)).model, whole.model)

    @needs_gpu
    def test_control_under_mmengines_wrapper_on_a_gpu(self, tmp_path):
        control = dict(perturbation=None, finetune=None)
        ours = train(amp_settings(tmp_path / 'ours', hook=control))
        cfg = settings(tmp_path / 'plain', hook=control)
        cfg['optim_wrapper'].update(type='AmpOptimWrapper', loss_scale='dynamic')
        assert_same_weights(ours.model, train(cfg).model)


class TestAmpOption:
    """What ``train.py --amp`` makes of the config, with a stand-in that needs no GPU."""

    @pytest.fixture(autouse=True)
    def stand_in(self, monkeypatch):
        class AmpOptimWrapper(OptimWrapper):
            def __init__(self, *args, loss_scale=None, **kwargs):
                super().__init__(*args, **kwargs)
                self.loss_scaler = loss_scale

        monkeypatch.setitem(OPTIM_WRAPPERS.module_dict, 'AmpOptimWrapper', AmpOptimWrapper)

    @pytest.mark.parametrize(
        ('hook', 'begins', 'ends'),
        [
            ({}, 'perturbation needs', 'set perturbation=None, finetune=None to prune'),
            (
                dict(perturbation=None, finetune=None, **TAYLOR),
                'importance=TaylorImportance reads unscaled gradients',
                'use MagnitudeImportance',
            ),
        ],
        ids=['perturbation', 'taylor'],
    )
    def test_error_says_what_to_write(self, tmp_path, hook, begins, ends):
        cfg = settings(tmp_path, hook=hook)
        cfg['optim_wrapper'].update(type='AmpOptimWrapper', loss_scale='dynamic')
        remedy = (
            r"AmpOptimWrapper.*write optim_wrapper=dict\(type='AdaSAPAmpOptimWrapper'\) and "
            r'leave out --amp'
        )
        with pytest.raises(ValueError, match=f'^{begins}.*{remedy}.*{ends}'):
            train(cfg)

    def test_magnitudes_need_no_gradients(self, tmp_path):
        hook = dict(perturbation=None, finetune=None, importance=dict(type='MagnitudeImportance'))
        cfg = settings(tmp_path, hook=hook)
        cfg['optim_wrapper'].update(type='AmpOptimWrapper', loss_scale='dynamic')
        train(cfg)
