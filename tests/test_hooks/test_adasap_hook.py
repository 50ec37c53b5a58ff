# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EarlyStoppingHook, EMAHook
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from _utils import adasap_runs
from _utils.adasap_runs import assert_same_weights, build, for_testing, kill_after, train, watch
from _utils.toy import ToyModel, loader, settings
from mmdet_adasap.apis import load_pruned
from mmdet_adasap.errors import (
    DivergedError,
    OptimizerStateError,
    StructureError,
    UnreachableTargetError,
)
from mmdet_adasap.hooks.runner_state import averaged_models
from mmdet_adasap.pruning import Importance, per_channel
from mmdet_adasap.pruning.structure import META_KEY
from mmdet_adasap.sharpness import AdaptivePerturbation

TESTS = Path(__file__).parent.parent
EPOCH = 6  # iterations


def build_unpruned_and_load(checkpoint: Path) -> ToyModel:
    model = ToyModel()
    load_pruned(model, str(checkpoint))
    return model


class WithGroups(ToyModel):
    """Layers whose number of groups follows their channels."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.extra = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 8, 1, groups=4),
            nn.GroupNorm(4, 8),
        )

    def forward(self, inputs, labels=None, mode='tensor'):
        stem = self.stem
        self.stem = nn.Sequential(*stem, *self.extra)
        try:
            return super().forward(inputs, labels, mode)
        finally:
            self.stem = stem


class FreezesInTrain(ToyModel):
    """Freezes a layer when it is set to train, as mmpretrain's and mmdet's MobileNetV2 do."""

    def train(self, mode=True):
        super().train(mode)
        for parameter in self.right.parameters():
            parameter.requires_grad = False
        return self


@MODEL_WRAPPERS.register_module()
class Wrapper(torch.nn.Module):
    """What a launcher puts around the model, also in a single process."""

    def __init__(self, module):
        super().__init__()
        self.module = module


class WithAuxiliaryLoss(ToyModel):
    """A layer that the loss alone uses."""

    def forward(self, inputs, labels=None, mode='tensor'):
        result = super().forward(inputs, labels, mode)
        if mode == 'loss':
            result['loss_extra'] = self.extra(self.stem(inputs)).square().mean()
        return result


ONE_PASS_OF_FOUR = [('AdaSAPOptimWrapper', 4), ('OptimWrapper', 4)]


class GradientImportance(Importance):
    """A user's criterion, which fails where it has observed nothing."""

    needs_gradients = True

    def observe(self, groups: list, parameters: dict) -> None:
        weights = [next(m for m in group.members if m.is_output) for group in groups]
        self._seen = [per_channel(parameters[m.name].grad.abs(), m) for m in weights]

    def scores(self, group, tensors, kept):
        return self._seen[group.index]


class TestPhases:
    def test_run_ends_slim_on_target(self, tmp_path):
        runner = train(settings(tmp_path))
        parameters = sum(p.numel() for p in runner.model.parameters())
        dense = sum(p.numel() for p in ToyModel().parameters())
        assert 0.38 * dense < parameters <= 0.4 * dense
        structure = torch.load(tmp_path / 'epoch_6.pth', weights_only=False)['meta'][META_KEY]
        assert structure['phase'] == 'finetune'
        assert structure['dense']['params'] == dense
        assert round(structure['reached']['params'] * dense) == parameters

    def test_cut_is_in_the_last_prune_iteration(self, tmp_path):
        """The checkpoint and the validation of that epoch are slim already."""
        train(settings(tmp_path))
        shapes = {}
        for epoch in (2, 3):
            checkpoint = torch.load(tmp_path / f'epoch_{epoch}.pth', weights_only=False)
            shapes[epoch] = checkpoint['state_dict']['fc.weight'].shape
        assert shapes[2] == (16, 96)
        assert shapes[3][0] < 16

    def test_ratio_follows_the_exponential_schedule(self, tmp_path):
        train(settings(tmp_path))
        (file,) = tmp_path.rglob('scalars.json')
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [row for row in rows if 'phase' in row]
        # Events after iterations 9, 12, 15 and 18; a row every second iteration of an epoch.
        for row in rows:
            done = row['iter']
            event = max(0, min(4, (done - 6) // 3))
            assert row['phase'] == (0 if done <= 6 else 1 if done <= 18 else 2)
            assert row['params_left'] <= 0.4 ** (event / 4)
            assert row['params_left'] > 0.4 ** (event / 4) - 0.03
            assert row['params_target'] == pytest.approx(0.4 ** (event / 4))
            assert {'mean_rho', 'eps_ratio', 'loss_ratio'} <= row.keys()
        assert rows[-1]['mean_rho'] == pytest.approx(0.1)  # uniform in the last phase

    @pytest.mark.parametrize('update_buffers', [False, True])
    @pytest.mark.parametrize(('wrapper', 'counts'), [('AdaSAPOptimWrapper', 1), *ONE_PASS_OF_FOUR])
    def test_masked_channels_are_exactly_zero_while_pruning(
        self, tmp_path, update_buffers, wrapper, counts
    ):
        """In weights, momentum and the moving average, whatever steps come after the event."""
        ema = dict(type='EMAHook', momentum=0.1, update_buffers=update_buffers)
        hook = dict(prune=3, interval=7)
        if counts > 1:  # events fall between two steps
            hook.update(perturbation=None, finetune=None, importance=dict(type='TaylorImportance'))
        cfg = settings(tmp_path, hook=hook, custom_hooks=[ema])
        cfg['optim_wrapper'] = cfg['optim_wrapper'] | dict(
            type=wrapper, accumulative_counts=counts
        )
        runner = build(cfg)
        seen = []

        def look(*_, **__):
            hook = runner.hooks[names.index('AdaSAPHook')]
            if hook.pruner is None or hook.pruner.masks.counts.sum() == 64:
                return
            (copied,) = [h.ema_model.module for h in runner.hooks if isinstance(h, EMAHook)]
            copied, model = dict(copied.named_parameters()), dict(runner.model.named_parameters())
            gone = 0
            for name, axes in hook.pruner.structure('prune')['keep'].items():
                if name not in model:
                    continue
                state = runner.optim_wrapper.optimizer.state[model[name]].values()
                for axis, keep in axes.items():
                    removed = [i for i in range(model[name].shape[axis]) if i not in keep]
                    gone += len(removed)
                    for tensor in (model[name], copied[name], *state):
                        assert not tensor.index_select(axis, torch.tensor(removed)).any(), name
                        assert tensor.index_select(axis, torch.tensor(keep)).any(), name
            seen.append(gone)

        names = [type(hook).__name__ for hook in runner.hooks]
        watch(runner, before_train_iter=look)
        runner.train()
        assert len(seen) > 6
        assert seen == sorted(seen)
        assert seen[-1] > 0

    @pytest.mark.long
    def test_control_prunes_with_any_wrapper_in_one_pass(self, tmp_path):
        control = dict(perturbation=None, finetune=None)
        ours = train(settings(tmp_path / 'ours', hook=control))
        cfg = settings(tmp_path / 'plain', hook=control)
        cfg['optim_wrapper'] = cfg['optim_wrapper'] | dict(type='OptimWrapper')
        assert_same_weights(ours.model, train(cfg).model, atol=0)

    @pytest.mark.long
    @pytest.mark.parametrize('accumulative_counts', [1, 4])
    def test_taylor_control_sees_the_same_gradients(self, tmp_path, accumulative_counts):
        """Those of each micro-batch, before they are clipped."""
        control = dict(perturbation=None, finetune=None, importance=dict(type='TaylorImportance'))
        wrapper = dict(clip_grad=dict(max_norm=0.1), accumulative_counts=accumulative_counts)
        cfg = settings(tmp_path / 'ours', hook=control)
        cfg['optim_wrapper'] = cfg['optim_wrapper'] | wrapper
        ours = train(cfg)
        cfg = settings(tmp_path / 'plain', hook=control)
        cfg['optim_wrapper'] = cfg['optim_wrapper'] | wrapper | dict(type='OptimWrapper')
        assert_same_weights(ours.model, train(cfg).model, atol=0)

    def test_own_criterion_is_asked_when_it_has_seen_gradients(self, tmp_path):
        hook = dict(importance=GradientImportance())
        runner = train(settings(tmp_path, hook))
        assert runner.model.fc.out_features < 16

    def test_log_says_where_a_step_is_one_pass(self, tmp_path):
        train(settings(tmp_path, hook=dict(finetune=None)))
        (file,) = tmp_path.rglob('scalars.json')
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        last = [row for row in rows if row.get('phase') == 2][-1]
        assert last['mean_rho'] == last['eps_ratio'] == 0
        assert last['loss_ratio'] == 1

    @pytest.mark.long
    @pytest.mark.parametrize('start', ['random', 'dense', 'resumed'])
    def test_a_start_from_random_weights_is_said(self, tmp_path, start):
        cfg = settings(tmp_path / 'run')
        if start == 'dense':
            torch.save(dict(state_dict=ToyModel().state_dict()), tmp_path / 'dense.pth')
            cfg['load_from'] = str(tmp_path / 'dense.pth')
        if start == 'resumed':
            kill_after(settings(tmp_path / 'run'), 9)
            for log in (tmp_path / 'run').rglob('*.log'):
                log.unlink()
            cfg['resume'] = True
        train(cfg)
        text = ''.join(log.read_text() for log in tmp_path.rglob('*.log'))
        assert ('from its random weights' in text) == (start == 'random')

    def test_stages_that_are_frozen_when_training_begins_are_not_cut(self, tmp_path):
        cfg = settings(tmp_path, hook=dict(target=dict(params=0.8)))
        runner = Runner(model=FreezesInTrain(), experiment_name='frozen', **cfg)
        before = runner.model.right.weight.clone()
        runner.train()
        assert runner.model.fc.out_features < 16
        (log,) = tmp_path.rglob('*.log')
        assert 'not trained' in log.read_text()
        structure = torch.load(tmp_path / 'epoch_6.pth', weights_only=False)['meta'][META_KEY]
        axes = structure['keep'].get('right.weight', {})
        assert 0 not in axes  # what is read goes with the layer that makes it
        for axis, keep in axes.items():
            before = before.index_select(axis, torch.tensor(keep))
        assert torch.equal(runner.model.right.weight, before)

    def test_log_says_what_the_radii_do_in_each_phase(self, tmp_path):
        runner = build(settings(tmp_path))
        ratios = []
        watch(
            runner,
            after_train_iter=lambda runner, *_, **__: ratios.append(
                float(runner.optim_wrapper.last_stats['loss_ratio'])
            ),
        )
        runner.train()
        (log,) = tmp_path.rglob('*.log')
        said = re.findall(
            r"iterations (\d+) to (\d+), of the phase '(\w+)', .* was (\S+) on", log.read_text()
        )
        assert [(int(first), int(last), phase) for first, last, phase, _ in said] == [
            (1, 6, 'warmup'),
            (7, 18, 'prune'),
            (19, 36, 'finetune'),
        ]
        for first, last, _, mean in said:
            of_phase = ratios[int(first) - 1 : int(last)]
            assert float(mean) == pytest.approx(sum(of_phase) / len(of_phase), abs=1e-3)

    def test_flops_target(self, tmp_path):
        runner = train(settings(tmp_path, hook=dict(target=dict(flops=0.5))))
        checkpoint = torch.load(tmp_path / 'epoch_6.pth', weights_only=False)
        reached = checkpoint['meta'][META_KEY]['reached']
        assert 0.46 < reached['flops'] <= 0.5
        assert sum(p.numel() for p in runner.model.parameters()) < 5444

    def test_optimizer_settings_survive_the_cut(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['optim_wrapper'] = cfg['optim_wrapper'] | dict(
            paramwise_cfg=dict(norm_decay_mult=0.0, bias_lr_mult=2.0)
        )
        runner = train(cfg)
        trained = {id(p) for p in runner.model.parameters()}
        groups = runner.optim_wrapper.optimizer.param_groups
        assert {id(p) for group in groups for p in group['params']} == trained
        for group in groups:
            (parameter,) = group['params']
            momentum = runner.optim_wrapper.optimizer.state[parameter]['momentum_buffer']
            assert momentum.shape == parameter.shape
        assert {group['weight_decay'] for group in groups} == {0.0, 1e-3}

    @pytest.mark.long
    def test_layers_of_the_loss_alone(self, tmp_path):
        """They are seen: what they read is cut with them, and training goes on."""
        runner = build(settings(tmp_path))
        model = runner.model
        model.__class__ = WithAuxiliaryLoss
        model.extra = torch.nn.Conv2d(8, 4, 1)
        runner.train()
        width = model.stem[0].weight.shape[0]
        assert width < 8
        assert model.extra.weight.shape == (4, width, 1, 1)

    def test_training_that_ends_before_the_cut_says_so(self, tmp_path):
        stop = dict(type='EarlyStoppingHook', monitor='score', rule='less', patience=1)
        cfg = settings(tmp_path, custom_hooks=[stop])
        runner = build(cfg)
        (hook,) = [h for h in runner.hooks if isinstance(h, EarlyStoppingHook)]
        hook.best_score = 0.0
        runner.train()
        assert runner.epoch == 1
        text = next(tmp_path.rglob('*.log')).read_text()
        assert "in the phase 'prune': the model is not cut, which would be due after 18" in text

    def test_diverged_training_is_told_from_a_wrong_cut(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['optim_wrapper']['optimizer']['lr'] = 1e12
        with pytest.raises(DivergedError, match=r'is not finite: training has diverged'):
            train(cfg)

    @pytest.mark.long
    def test_one_perturbation_for_all_phases(self, tmp_path):
        perturbation = AdaptivePerturbation()
        hook = dict(perturbation=perturbation, finetune=perturbation)
        same = train(settings(tmp_path / 'same', hook=hook))
        hook = dict(perturbation=AdaptivePerturbation(), finetune=AdaptivePerturbation())
        assert_same_weights(same.model, train(settings(tmp_path / 'two', hook=hook)).model, atol=0)

    @pytest.mark.long
    def test_early_stopping_starts_anew_at_the_cut(self, tmp_path):
        """The dense model's score cannot be beaten; the slim one is measured by its own."""
        stop = dict(type='EarlyStoppingHook', monitor='score', rule='less', patience=3)
        runner = build(settings(tmp_path, custom_hooks=[stop]))
        (hook,) = [h for h in runner.hooks if isinstance(h, EarlyStoppingHook)]
        hook.best_score = 0.0
        runner.train()
        assert runner.epoch > 3
        assert hook.best_score > 0

    @pytest.mark.long
    def test_layers_that_share_a_weight(self, tmp_path):
        """``named_parameters`` gives a shared weight once; the table has a row for each layer."""
        runner = build(settings(tmp_path, log_level='INFO'))
        runner.model.twin = torch.nn.Conv2d(8, 8, 1)
        runner.model.twin.weight = runner.model.left.weight
        runner.train()
        assert 'left ' in next(tmp_path.rglob('*.log')).read_text()

    def test_best_checkpoint_is_a_slim_one(self, tmp_path):
        cfg = settings(tmp_path)
        # `less`: the untrained model scores best, and the slim ones must not lose to it.
        cfg['default_hooks']['checkpoint'].update(save_best='score', rule='less')
        train(cfg)
        (best,) = tmp_path.glob('best_*.pth')
        checkpoint = torch.load(best, weights_only=False)
        assert checkpoint['meta'][META_KEY]['phase'] == 'finetune'

    @pytest.mark.long
    @pytest.mark.parametrize('kind', ['CheckpointHook', 'AtomicCheckpointHook'])
    def test_no_best_checkpoint_is_better_than_a_dense_one(self, tmp_path, kind):
        cfg = settings(tmp_path)
        cfg['default_hooks']['checkpoint'] = dict(type=kind, save_best=['score'], rule='less')
        runner, seen = build(cfg), {}

        def look(runner, *_, **__):
            seen[runner.iter + 1] = [path.name for path in tmp_path.glob('best_*.pth')]

        watch(runner, after_train_iter=look)
        runner.train()
        assert seen[17] == ['best_score_epoch_1.pth']
        assert seen[18] == []
        assert len(seen[36]) == 1


class TestTesting:
    @pytest.mark.parametrize('ema', [None, False, True])
    def test_unpruned_config_tests_the_pruned_checkpoint(self, tmp_path, ema):
        hook = dict(type='EMAHook', momentum=0.1, update_buffers=ema)
        hooks = [] if ema is None else [hook]
        runner = train(settings(tmp_path, custom_hooks=hooks))
        last = runner.message_hub.get_scalar('val/score').current()
        score = build(for_testing(tmp_path, custom_hooks=hooks)).test()['score']
        assert score == last

    def test_config_with_resume_in_it(self, tmp_path):
        """As a resumed train.py leaves it in its work_dir: mmengine reads the optimizer, too."""
        runner = train(settings(tmp_path))
        cfg = settings(tmp_path, resume=True, load_from=str(tmp_path / 'epoch_6.pth'))
        cfg['optim_wrapper'] = ConfigDict(cfg['optim_wrapper'])  # as in a config from a file
        for key in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'test_{key}'] = cfg[f'val_{key}']
        last = runner.message_hub.get_scalar('val/score').current()
        assert build(cfg).test()['score'] == last

    @pytest.mark.long
    def test_new_process(self, tmp_path):
        runner = train(settings(tmp_path))
        last = runner.message_hub.get_scalar('val/score').current()
        script = f"""
            import sys
            sys.path.insert(0, {str(TESTS)!r})
            from pathlib import Path
            from _utils.adasap_runs import build, for_testing
            score = build(for_testing(Path({str(tmp_path)!r}))).test()['score']
            print('score', score.hex())
        """
        done = subprocess.run(
            [sys.executable, '-c', textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=True,
            # As conftest.py has it here: with more threads sums are rounded in another order.
            env=os.environ | dict(PYTHONPATH=str(TESTS.parent), OMP_NUM_THREADS='1'),
        )
        assert f'score {last.hex()}' in done.stdout

    def test_masked_checkpoint_tests_at_dense_shape(self, tmp_path):
        train(settings(tmp_path))
        runner = build(settings(tmp_path, load_from=str(tmp_path / 'epoch_2.pth')))
        runner.load_or_resume()
        assert runner.model.fc.weight.shape == (16, 96)
        assert not runner.model.fc.weight.all()

    @pytest.mark.long
    @pytest.mark.parametrize('width', [4, 16])
    def test_other_model_is_an_error_and_stays_as_it_was(self, tmp_path, width):
        train(settings(tmp_path))
        cfg = settings(tmp_path, load_from=str(tmp_path / 'epoch_6.pth'))
        runner = build(cfg, width=width)
        before = copy.deepcopy(runner.model.state_dict())
        with pytest.raises(StructureError, match=r'is of a model of 5444 parameters and'):
            runner.load_or_resume()
        for name, tensor in runner.model.state_dict().items():
            assert torch.equal(tensor, before[name])


@pytest.mark.long
class TestResume:
    """Killed and resumed runs against the uninterrupted one."""

    @pytest.mark.parametrize('killed_at', [8, 14, 20])
    def test_layers_with_groups(self, tmp_path, killed_at, monkeypatch):
        monkeypatch.setattr(adasap_runs, 'ToyModel', WithGroups)
        hook = dict(target=dict(params=0.6))
        whole = train(settings(tmp_path / 'whole', hook=hook))
        assert whole.model.extra[0].groups < 8
        cfg = settings(tmp_path / 'parts', hook=hook)
        kill_after(cfg, killed_at)
        assert_same_weights(train(cfg | dict(resume=True)).model, whole.model)

    # Into warm-up, right before the first event, between events, at the cut, and after it.
    @pytest.mark.parametrize('killed_at', [4, 8, 13, 18, 19, 31])
    @pytest.mark.parametrize(
        'importance', ['MagnitudeImportance', 'TaylorImportance'], ids=['magnitude', 'taylor']
    )
    def test_epoch_checkpoints(self, tmp_path, killed_at, importance):
        hook = dict(importance=dict(type=importance))
        whole = train(settings(tmp_path / 'whole', hook=hook))
        cfg = settings(tmp_path / 'parts', hook=hook)
        kill_after(cfg, killed_at)
        resumed = train(cfg | dict(resume=True))
        assert_same_weights(resumed.model, whole.model)

    @pytest.mark.parametrize('update_buffers', [False, True])
    @pytest.mark.parametrize('killed_at', [14, 25])
    def test_moving_average(self, tmp_path, killed_at, update_buffers):
        ema = dict(type='EMAHook', momentum=0.1, update_buffers=update_buffers)
        cfg = dict(custom_hooks=[ema])
        whole = train(settings(tmp_path / 'whole', **cfg))
        cfg = settings(tmp_path / 'parts', **cfg)
        kill_after(cfg, killed_at)
        resumed = train(cfg | dict(resume=True))
        assert_same_weights(resumed.model, whole.model)
        (left,), (right,) = averaged_models(resumed), averaged_models(whole)
        assert left.fc.weight.shape == resumed.model.fc.weight.shape
        assert_same_weights(left, right)

    @pytest.mark.parametrize('killed_at', [8, 20])
    def test_augmentation_in_workers(self, tmp_path, killed_at):
        cfg = dict(
            train_dataloader=loader(noise=0.3, num_workers=2, persistent_workers=False),
        )
        whole = train(settings(tmp_path / 'whole', **cfg))
        cfg = settings(tmp_path / 'parts', **cfg)
        kill_after(cfg, killed_at)
        assert_same_weights(train(cfg | dict(resume=True)).model, whole.model)

    @pytest.mark.parametrize('killed_at', [3, 11, 17, 25])
    def test_iterations_within_an_interval(self, tmp_path, killed_at):
        """Checkpoints every 2 iterations, events every 5: importance sums are carried over."""
        hook = dict(
            warmup=5,
            prune=15,
            interval=5,
            by_epoch=False,
            importance=dict(type='TaylorImportance'),
        )
        cfg = dict(
            train_dataloader=loader() | dict(sampler=dict(type='InfiniteSampler', shuffle=True)),
            train_cfg=dict(by_epoch=False, max_iters=30, val_interval=10),
            param_scheduler=dict(type='CosineAnnealingLR', T_max=30, by_epoch=False),
        )

        def iterations(work_dir: Path) -> dict:
            made = settings(work_dir, hook=hook, **cfg)
            made['default_hooks']['checkpoint'].update(by_epoch=False, interval=2)
            return made

        whole = train(iterations(tmp_path / 'whole'))
        parts = iterations(tmp_path / 'parts')
        kill_after(parts, killed_at)
        assert_same_weights(train(parts | dict(resume=True)).model, whole.model)

    def test_importance_sums_are_in_the_checkpoint(self, tmp_path):
        hook = dict(importance=dict(type='TaylorImportance'), interval=12)
        cfg = settings(tmp_path, hook=hook)
        runner = build(cfg)
        sums = {}

        def look(runner, *_, **__):
            hook = next(h for h in runner.hooks if type(h).__name__ == 'AdaSAPHook')
            if hook.pruner:
                sums[runner.epoch + 1] = hook.settings.importance.state_dict()

        watch(runner, after_train_epoch=look)
        runner.train()
        saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)[META_KEY]['importance']
        assert saved['count'] == sums[2]['count'] == EPOCH
        for left, right in zip(saved['sums'], sums[2]['sums'], strict=True):
            assert torch.equal(left, right)
            assert left.any()

    def test_iteration_checkpoint_in_an_epoch_loop_warns(self, tmp_path, caplog):
        cfg = settings(tmp_path)
        cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=4)
        kill_after(cfg, 9)
        runner = build(cfg | dict(resume=True))
        runner.logger.addHandler(caplog.handler)
        runner.train()
        assert 'does not restore the order of the data' in caplog.text
        dense = sum(p.numel() for p in ToyModel().parameters())
        assert 0.38 * dense < sum(p.numel() for p in runner.model.parameters()) <= 0.4 * dense

    @pytest.mark.parametrize('epoch', [2, 3, 5])
    def test_by_hand(self, tmp_path, epoch):
        whole = train(settings(tmp_path / 'whole'))
        runner = build(settings(tmp_path / 'parts'))
        runner.resume(str(tmp_path / 'whole' / f'epoch_{epoch}.pth'))
        runner.train()
        assert_same_weights(runner.model, whole.model)

    def test_another_radius_is_said(self, tmp_path, caplog):
        kill_after(settings(tmp_path), 14)
        finetune = dict(type='UniformPerturbation', rho=0.3)
        runner = build(settings(tmp_path, hook=dict(finetune=finetune), resume=True))
        runner.logger.addHandler(caplog.handler)
        runner.train()
        assert "was started with finetune={'type': 'UniformPerturbation'" in caplog.text
        assert "'rho': 0.1" in caplog.text
        assert 'was started with perturbation' not in caplog.text

    def test_other_phases_are_refused(self, tmp_path):
        cfg = settings(tmp_path)
        kill_after(cfg, 20)
        with pytest.raises(StructureError, match='resume with the settings'):
            train(settings(tmp_path, hook=dict(warmup=3), resume=True))


@pytest.mark.long
class TestAgain:
    """A pruned model is pruned further; targets and structures stay those of the dense one."""

    FIRST, AGAIN = dict(target=dict(params=0.6)), dict(target=dict(params=0.3))

    @pytest.fixture(scope='class')
    def first(self, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp('first')
        train(settings(folder, hook=self.FIRST))
        return folder / 'epoch_6.pth'

    def test_ends_on_target_of_the_dense_model(self, first, tmp_path):
        runner = train(settings(tmp_path, hook=self.AGAIN, load_from=str(first)))
        dense = sum(p.numel() for p in ToyModel().parameters())
        assert 0.28 * dense < sum(p.numel() for p in runner.model.parameters()) <= 0.3 * dense
        structure = torch.load(tmp_path / 'epoch_6.pth', weights_only=False)['meta'][META_KEY]
        assert structure['dense']['params'] == dense
        assert 'start' not in structure

    def test_schedule_begins_at_what_there_is(self, first, tmp_path):
        runner = build(settings(tmp_path, hook=self.AGAIN, load_from=str(first)))
        targets = []

        def look(runner, *_, **__):
            targets.append(runner.message_hub.get_scalar('train/params_target').current())

        watch(runner, after_train_iter=look)
        runner.train()
        reached = torch.load(first, weights_only=False)['meta'][META_KEY]['reached']['params']
        assert targets[5] == pytest.approx(reached)  # before the first of four events
        assert targets[11] == pytest.approx(reached * (0.3 / reached) ** 0.5)
        assert targets[35] == pytest.approx(0.3)

    def test_unpruned_config_tests_every_checkpoint(self, first, tmp_path):
        runner = build(settings(tmp_path, hook=self.AGAIN, load_from=str(first)))
        scores = []

        def look(runner, metrics):
            scores.append(metrics['score'])

        watch(runner, after_val_epoch=look)
        runner.train()
        for epoch in (1, 2, 3, 6):
            file = str(tmp_path / f'epoch_{epoch}.pth')
            assert (
                build(for_testing(tmp_path, load_from=file)).test()['score'] == scores[epoch - 1]
            )

    @pytest.mark.parametrize('ema', [False, True])
    @pytest.mark.parametrize('killed_at', [4, 8, 13, 18, 31])
    def test_resuming(self, first, tmp_path, killed_at, ema):
        hooks = [dict(type='EMAHook', momentum=0.1)] if ema else []
        changes = dict(hook=self.AGAIN, load_from=str(first), custom_hooks=hooks)
        whole = train(settings(tmp_path / 'whole', **changes))
        cfg = settings(tmp_path / 'parts', **changes)
        kill_after(cfg, killed_at)
        if killed_at > EPOCH:  # else there is no checkpoint yet
            cfg |= dict(resume=True, load_from=None)
        resumed = train(cfg)
        assert_same_weights(resumed.model, whole.model)
        for left, right in zip(averaged_models(resumed), averaged_models(whole), strict=True):
            assert_same_weights(left, right)

    def test_optimizer_that_has_a_state_before_it_steps(self, first, tmp_path):
        cfg = settings(tmp_path, hook=self.AGAIN, load_from=str(first))
        cfg['optim_wrapper']['optimizer'] = dict(type='Adagrad', lr=0.01)
        runner = train(cfg)
        for parameter, state in runner.optim_wrapper.optimizer.state.items():
            assert state['sum'].shape == parameter.shape

    @pytest.mark.parametrize('schedule', ['exponential', 'linear'])
    def test_least_that_can_remain(self, first, tmp_path, schedule):
        """The last event asks for the target itself, whatever the schedule rounds to."""
        hook = dict(target=dict(params=448 / 5444), round_to=3, schedule=schedule)
        runner = train(settings(tmp_path, hook=hook, load_from=str(first)))
        assert sum(p.numel() for p in runner.model.parameters()) == 448

    def test_a_third_time(self, first, tmp_path):
        """From the slim checkpoint of the second run, and from its warm-up."""
        train(settings(tmp_path, hook=self.AGAIN, load_from=str(first)))
        third = dict(hook=dict(target=dict(params=0.2)))
        for epoch, work_dir in ((6, tmp_path / 'slim'), (1, tmp_path / 'warm')):
            load_from = str(tmp_path / f'epoch_{epoch}.pth')
            train(settings(work_dir, load_from=load_from, **third))
            model = build_unpruned_and_load(work_dir / 'epoch_6.pth')
            dense = sum(p.numel() for p in ToyModel().parameters())
            assert sum(p.numel() for p in model.parameters()) <= 0.2 * dense


class TestBadInput:
    """One clear error each, before the first step, and nothing changed."""

    def test_settings(self, tmp_path):
        """The rest of them is in test_settings.py, without a Runner."""
        with pytest.raises(ValueError, match=r'^warmup=-1 must be an integer of at least 0'):
            build(settings(tmp_path, hook=dict(warmup=-1)))

    @pytest.mark.parametrize(
        ('hook', 'changes', 'message'),
        [
            (dict(warmup=3, prune=3), {}, r'^warmup=3 and prune=3 leave none of the 6 epochs'),
            (dict(interval=13), {}, r'^interval=13 is longer than the prune phase of 12'),
            (
                {},
                dict(train_cfg=dict(by_epoch=False, max_iters=36), param_scheduler=None),
                r'^by_epoch=True needs a train_cfg that counts epochs',
            ),
            (
                {},
                dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))),
                r'^perturbation needs optim_wrapper.type=AdaSAPOptimWrapper.*--amp',
            ),
        ],
    )
    def test_settings_that_do_not_suit_the_run(self, tmp_path, hook, changes, message):
        runner = build(settings(tmp_path, hook=hook, **changes))
        before = copy.deepcopy(runner.model.state_dict())
        with pytest.raises(ValueError, match=message):
            runner.train()
        for name, tensor in runner.model.state_dict().items():
            assert torch.equal(tensor, before[name])

    def test_unreachable_target_says_what_is_reachable(self, tmp_path):
        hook = dict(target=dict(params=0.05), round_to=8)
        with pytest.raises(
            UnreachableTargetError,
            match=r'at least 0\.\d+ remain; lower round_to to 2, or set a target of 0',
        ):
            build(settings(tmp_path, hook=hook)).train()
        with pytest.raises(UnreachableTargetError) as error:
            build(settings(tmp_path, hook=hook)).train()
        reachable = float(str(error.value).split('target of ')[1].split(' ')[0])
        hook['target'] = dict(params=reachable)
        runner = train(settings(tmp_path / 'reachable', hook=hook))
        dense = sum(p.numel() for p in ToyModel().parameters())
        assert sum(p.numel() for p in runner.model.parameters()) <= reachable * dense

    @pytest.mark.long
    @pytest.mark.parametrize(('meta', 'left'), [({}, 0.4), (dict(epoch=6), 0.4), ({}, 0.8)])
    def test_slim_weights_without_their_structure(self, tmp_path, meta, left):
        """As published_keys=['state_dict'] leaves them; at 0.8 most of the tensors fit."""
        train(settings(tmp_path, hook=dict(target=dict(params=left))))
        weights = torch.load(tmp_path / 'epoch_6.pth', weights_only=False)['state_dict']
        torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'bare.pth')
        cfg = dict(load_from=str(tmp_path / 'bare.pth'))
        for run in (
            lambda: build(for_testing(tmp_path, **cfg)).test(),
            lambda: train(settings(tmp_path / 'again', **cfg)),
        ):
            with pytest.raises(
                ValueError, match=r'have other shapes than ToyModel.*published_keys'
            ):
                run()

    def test_head_for_other_classes_as_a_start(self, tmp_path):
        weights = ToyModel().state_dict()
        weights['head.weight'] = torch.zeros(9, 16)
        torch.save(dict(state_dict=weights), tmp_path / 'other.pth')
        train(settings(tmp_path / 'run', load_from=str(tmp_path / 'other.pth')))

    def test_resuming_before_there_is_a_checkpoint(self, tmp_path):
        """train.py --resume leaves load_from out, and mmengine would start at random weights."""
        config = tmp_path / 'config.py'
        config.write_text("load_from = 'dense.pth'\n")
        cfg = settings(tmp_path, resume=True, cfg=Config.fromfile(config))
        with pytest.raises(ValueError, match=r"^resume: .*load_from='dense.pth' is left out"):
            train(cfg)
        config.write_text('load_from = None\n')
        train(cfg | dict(cfg=Config.fromfile(config)))

    @pytest.mark.long
    @pytest.mark.parametrize(
        ('epoch', 'damage', 'message'),
        [
            (4, lambda c: c['optimizer']['state'].clear(), 'holds 0 optimizer states, and was'),
            (4, lambda c: c['optimizer']['state'].pop(0), 'optimizer states, and was saved with'),
            (4, lambda c: c.pop('param_schedulers'), 'has no param_schedulers'),
            (2, lambda c: c.pop(META_KEY), 'does not say with what settings'),
            (2, lambda c: c[META_KEY].update(settings=5), 'does not say with what settings'),
            (2, lambda c: c[META_KEY].pop('importance'), 'importance of the checkpoint is not'),
            (2, lambda c: c[META_KEY]['importance'].update(count=0), 'is not what Taylor'),
            (2, lambda c: c[META_KEY]['importance'].update(sums=[]), 'is not what Taylor'),
            (4, lambda c: c['optimizer']['state'].update({0: 5}), 'is malformed'),
            (4, lambda c: c.update(ema_state_dict=5), 'ema_state_dict of the checkpoint'),
        ],
    )
    def test_resumed_without_a_part_of_its_state(self, tmp_path, epoch, damage, message):
        hook = dict(importance=dict(type='TaylorImportance'), interval=12)
        train(settings(tmp_path, hook=hook))
        checkpoint = torch.load(tmp_path / f'epoch_{epoch}.pth', weights_only=False)
        damage(checkpoint)
        torch.save(checkpoint, tmp_path / 'damaged.pth')
        cfg = settings(tmp_path / 'again', hook, resume=True)
        with pytest.raises(ValueError, match=message):
            train(cfg | dict(load_from=str(tmp_path / 'damaged.pth')))

    def test_resumed_with_another_optimizer(self, tmp_path):
        cfg = settings(tmp_path)
        kill_after(cfg, 20)
        cfg['optim_wrapper']['optimizer'] = dict(type='AdamW', lr=0.001)
        with pytest.raises(ValueError, match=r"^resume: .* lacks 'exp_avg', which AdamW keeps"):
            train(cfg | dict(resume=True))

    def test_other_target_when_resumed(self, tmp_path):
        cfg = settings(tmp_path)
        kill_after(cfg, 20)
        with pytest.raises(StructureError, match=r'^resume: the run was started with target='):
            train(settings(tmp_path, hook=dict(target=dict(params=0.8)), resume=True))

    @pytest.mark.long
    @pytest.mark.parametrize(
        ('key', 'value'),
        [
            ('round_to', 4),
            ('schedule', 'linear'),
            ('importance', dict(type='TaylorImportance')),
            ('importance', dict(type='MagnitudeImportance', p=1)),
        ],
    )
    def test_other_settings_when_resumed(self, tmp_path, key, value):
        kill_after(settings(tmp_path), 14)
        with pytest.raises(StructureError, match=rf'^resume: the run was started with {key}='):
            train(settings(tmp_path, hook={key: value}, resume=True))

    @pytest.mark.skipif(
        not hasattr(torch.optim, 'Adafactor'), reason='this PyTorch has no Adafactor yet'
    )
    def test_optimizer_whose_state_cannot_be_cut(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['optim_wrapper']['optimizer'] = dict(type=torch.optim.Adafactor, lr=0.01)
        with pytest.raises(
            OptimizerStateError, match=r'^optim_wrapper.optimizer: Adafactor keeps'
        ):
            train(cfg)

    def test_optimizer_that_needs_a_closure(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['optim_wrapper']['optimizer'] = dict(type='LBFGS', lr=0.01)
        with pytest.raises(ValueError, match=r'^optim_wrapper.optimizer: LBFGS cannot be stepped'):
            train(cfg)

    @pytest.mark.parametrize('other', ['EMAHook', 'CheckpointHook'])
    def test_hooks_in_another_order(self, tmp_path, other):
        """They would load into, or save, a model that has not its shape yet."""
        cfg = settings(tmp_path, custom_hooks=[dict(type='EMAHook')])
        if other == 'EMAHook':
            cfg['custom_hooks'][0]['priority'] = 'VERY_HIGH'
        else:
            cfg['default_hooks']['adasap']['priority'] = 'LOWEST'
            cfg['custom_hooks'] = []
        with pytest.raises(ValueError, match=rf'^priority: {other} comes before AdaSAPHook'):
            train(cfg)

    def test_another_runner(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['optim_wrapper'] = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
        cfg['default_hooks']['adasap'] |= dict(perturbation=None, finetune=None)
        runner = FlexibleRunner(model=ToyModel(), **cfg)
        with pytest.raises(ValueError, match=r"^runner_type='FlexibleRunner': AdaSAPHook works"):
            runner.train()

    def test_two_hooks(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['custom_hooks'] = [cfg['default_hooks']['adasap']]
        with pytest.raises(ValueError, match=r'AdaSAPHook is there more than once'):
            train(cfg)

    def test_distributed_wrapper(self, tmp_path):
        runner = build(settings(tmp_path))
        runner.model = Wrapper(runner.model)
        with pytest.raises(ValueError, match=r'^model_wrapper_cfg: .* and this run has Wrapper'):
            runner.train()

    def test_perturbation_of_the_wrapper_beside_the_hook(self, tmp_path):
        cfg = settings(tmp_path)
        cfg['optim_wrapper']['perturbation'] = dict(type='UniformPerturbation')
        with pytest.raises(
            ValueError, match=r'^optim_wrapper.perturbation and AdaSAPHook are both'
        ):
            train(cfg)

    @pytest.mark.long
    def test_warm_up_checkpoint_as_a_start(self, tmp_path):
        """Nothing is pruned there yet."""
        train(settings(tmp_path))
        train(settings(tmp_path / 'again', load_from=str(tmp_path / 'epoch_1.pth')))

    @pytest.mark.long
    @pytest.mark.parametrize(
        ('epoch', 'message'),
        [
            (2, 'was written while channels were being removed'),
            (6, 'was already pruned to params'),
        ],
    )
    def test_pruned_checkpoint_as_a_start(self, tmp_path, epoch, message):
        train(settings(tmp_path))
        cfg = settings(tmp_path / 'again', load_from=str(tmp_path / f'epoch_{epoch}.pth'))
        with pytest.raises(ValueError, match=rf'^load_from: .* {message}'):
            train(cfg)

    def test_resumed_run_without_a_structure(self, tmp_path):
        cfg = settings(tmp_path)
        hook = cfg['default_hooks'].pop('adasap')
        kill_after(cfg, 20)
        cfg['default_hooks']['adasap'] = hook
        with pytest.raises(ValueError, match=r'^resume: .*no pruned structure'):
            train(cfg | dict(resume=True))
