# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the log says before the first step, at the first event and after the last one."""

import re

import pytest
import torch

from _utils.adasap_runs import build, watch
from _utils.toy import settings
from mmdet_adasap.hooks.schedule import Phases
from mmdet_adasap.hooks.training_plan import learning_rates


def log_of(cfg, caplog) -> str:
    runner = build(cfg | dict(log_level='INFO'))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    return caplog.text


SCHEDULES = {
    'none': None,
    'cosine by epoch': dict(type='CosineAnnealingLR', T_max=6, by_epoch=True),
    'cosine by iteration': dict(
        type='CosineAnnealingLR', T_max=6, by_epoch=True, end=6, convert_to_iter_based=True
    ),
    'one that follows a metric': dict(type='ReduceOnPlateauLR', monitor='score'),
    'milestone': dict(type='MultiStepLR', milestones=[2], gamma=0.1),
    'warm-up and milestone': [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=9),
        dict(type='MultiStepLR', milestones=[4], gamma=0.1),
    ],
}


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_rates_are_those_of_the_run(schedule, tmp_path):
    cfg = settings(tmp_path, param_scheduler=SCHEDULES[schedule])
    runner, seen, told = build(cfg), [], []

    def before_train(run):
        told.append(learning_rates(run, Phases(6, 18, 3)))

    def before_train_iter(run, *args, **kwargs):
        seen.append(max(group['lr'] for group in run.optim_wrapper.param_groups))

    watch(runner, before_train=before_train, before_train_iter=before_train_iter)
    runner.train()
    assert len(seen) == 36
    if 'metric' in schedule:
        assert told == [None]
        return
    assert told[0] == pytest.approx((max(seen), seen[18], seen[-1]), rel=1e-9)


def test_rate_in_a_tensor(tmp_path):
    cfg = settings(tmp_path)
    cfg['optim_wrapper']['optimizer'] = dict(type='Adam', lr=torch.tensor(0.01))
    runner, told = build(cfg), []
    watch(runner, before_train=lambda run: told.append(learning_rates(run, Phases(6, 18, 3))))
    runner.train()
    assert told[0].highest == pytest.approx(0.01)


def test_schedulers_are_left_as_they_are(tmp_path):
    runner = build(settings(tmp_path))
    states = []

    def before_train(run):
        states.append([dict(s.state_dict()) for s in run.param_schedulers])
        learning_rates(run, Phases(6, 18, 3))
        states.append([dict(s.state_dict()) for s in run.param_schedulers])
        states.append([dict(g, params=None) for g in run.optim_wrapper.param_groups])

    watch(runner, before_train=before_train)
    runner.train()
    assert states[0] == states[1]
    assert states[2][0]['lr'] == 0.05


def test_the_start_says_what_will_be_done(tmp_path, caplog):
    text = log_of(settings(tmp_path), caplog)
    assert '4 pruning events, one every 3 iterations after iteration 6' in text
    assert 'lead from params 1 to 0.4 of the dense model' in text
    assert 'The cut comes after iteration 18; 18 iterations are left to fine-tune' in text
    assert 'the learning rate is 0.05 at its highest, 0.025 after the cut' in text
    assert 'WARNING' not in ''.join(x for x in text.splitlines() if 'learning rate is' in x)


def test_a_resumed_run_says_what_is_left(tmp_path, caplog):
    run = settings(tmp_path)
    build(run).train()
    resumed = settings(tmp_path / 'resumed', load_from=str(tmp_path / 'epoch_2.pth'), resume=True)
    text = log_of(resumed, caplog)
    assert '2 of 4 pruning events, one every 3 iterations after iteration 6' in text


def test_milestone_before_the_cut_is_a_warning(tmp_path, caplog):
    text = log_of(settings(tmp_path, param_scheduler=SCHEDULES['milestone']), caplog)
    (line,) = [x for x in text.splitlines() if 'the learning rate is' in x]
    assert line.startswith('WARNING')
    assert 'move the milestones of param_scheduler behind the cut' in line


def test_few_events_are_a_warning(tmp_path, caplog):
    text = log_of(settings(tmp_path, dict(interval=5)), caplog)
    assert '2 pruning events in a prune phase of 12 iterations' in text
    assert 'for example to interval=1' in text


def test_little_time_to_finetune_is_a_warning(tmp_path, caplog):
    text = log_of(settings(tmp_path, dict(warmup=1, prune=4)), caplog)
    assert 'the cut leaves only 6 of 36 iterations to fine-tune' in text


@pytest.mark.parametrize('kind', ['MagnitudeImportance', 'TaylorImportance'])
def test_forecast_is_what_one_event_would_leave(kind, tmp_path, caplog):
    hook = dict(importance=dict(type=kind), interval=12)  # one event: the forecast is exact
    text = log_of(settings(tmp_path, hook), caplog)
    (line,) = [x for x in text.splitlines() if 'if scores stay as they are' in x]
    (done,) = [x for x in text.splitlines() if 'AdaSAP is done' in x]
    told, left = (re.findall(r'\b0\.\d{3}\b', x) for x in (line, done))
    assert len(told) == 2
    assert float(told[0]) <= 0.4
    # Magnitudes change until the event; what is forecast for Taylor is what the event does.
    if kind == 'TaylorImportance':
        assert told == left


def test_end_names_what_to_run_next(tmp_path, caplog):
    runner = build(settings(tmp_path, log_level='INFO'))
    runner.logger.addHandler(caplog.handler)
    config = tmp_path / 'my config.py'
    config.touch()
    object.__setattr__(runner.cfg, '_filename', str(config))  # as Config.fromfile sets it
    runner.train()
    files = f"'{config}' {tmp_path / 'epoch_6.pth'}"
    for command in ('adasap robustness', 'adasap export', '--tool test)"'):
        assert f'{command} {files}' in caplog.text
