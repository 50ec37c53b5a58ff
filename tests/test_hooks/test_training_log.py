# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from _utils.adasap_runs import build, kill_after, train, watch
from _utils.toy import settings
from mmdet_adasap.hooks.training_log import ONE_PASS, LossRatioWatch
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation


def verdict(ratios, perturbation=None):
    watch = LossRatioWatch(
        'warmup', 'perturbation', perturbation or AdaptivePerturbation(), 0, len(ratios)
    )
    *before, last = [watch.add(torch.tensor(ratio)) for ratio in ratios]
    assert not any(before)
    return last


@pytest.mark.parametrize(
    ('ratios', 'level', 'words'),
    [
        ([1.0, 1.01, 1.02], logging.WARNING, 'was 1.010 on average, .*: raise perturbation.rho'),
        ([1.1, 1.2, 1.3], logging.INFO, 'was 1.200 on average$'),
        ([1.0, 2.0, 3.6], logging.WARNING, 'was 2.200 on average, .*: lower perturbation.rho'),
        (
            [1.3, math.nan, 1.1],
            logging.INFO,
            '1 losses were not finite; elsewhere .* was 1.200 on',
        ),
        ([math.nan, math.inf], logging.WARNING, 'iterations 1 to 2, of .* no loss was finite'),
    ],
)
def test_radii_that_are_too_small_or_large_are_said(ratios, level, words):
    found, text = verdict(ratios)
    assert found == level
    assert re.search(words, text)


@pytest.mark.parametrize(
    ('perturbation', 'radii'),
    [
        (AdaptivePerturbation(), 'perturbation.rho_max and perturbation.rho_min until'),
        (UniformPerturbation(), 'perturbation.rho until'),
    ],
)
def test_radii_are_called_as_the_config_does(perturbation, radii):
    assert f'raise {radii}' in verdict([1.0], perturbation)[1]


def test_is_said_once_about_a_hundred_iterations():
    """Of a run that was resumed at iteration 20, too."""
    watch = LossRatioWatch('finetune', 'finetune', UniformPerturbation(), 20, 170)
    said = [watch.add(1.0 if step < 100 else 5.0) for step in range(150)]
    assert [step for step, each in enumerate(said) if each] == [99]
    assert 'raise finetune.rho until' in said[99][1]
    assert 'in iterations 21 to 120, ' in said[99][1]


@pytest.mark.parametrize(
    ('ratio', 'level', 'words'),
    [
        (1.32, logging.INFO, 'was 1.320 on average, as perturbation.loss_ratio=1.3 wants it$'),
        (1.1, logging.WARNING, 'was 1.100 .*loss_ratio=1.3 was asked for: the radii have not'),
    ],
)
def test_a_wanted_ratio_is_given_time(ratio, level, words):
    perturbation = AdaptivePerturbation(loss_ratio=1.3)
    watch = LossRatioWatch('prune', 'perturbation', perturbation, 20, 220)
    said = [watch.add(1.0 if step < 60 else ratio) for step in range(200)]
    assert [step for step, each in enumerate(said) if each] == [159]
    assert said[159][0] == level
    assert 'in iterations 81 to 180, ' in said[159][1]
    assert re.search(words, said[159][1])


def test_of_a_phase_without_steps_nothing_is_said():
    watch = LossRatioWatch('finetune', 'finetune', UniformPerturbation(), 5, 5)
    assert watch.add(1.0) is None


def logged(folder: Path) -> list[dict]:
    """What the log has of iterations, those of resumed runs last."""
    files = sorted(folder.glob('*/vis_data/scalars.json'), key=lambda file: file.stat().st_mtime)
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [row for row in rows if 'phase' in row]


MEANS = dict(type='LogProcessor', window_size=10, mean_pattern='loss|eps_ratio|mean_rho')


def test_means_in_the_log_are_of_one_phase(tmp_path):
    cfg = settings(tmp_path, log_processor=MEANS)
    cfg['default_hooks']['logger']['interval'] = 1
    runner, seen = build(cfg), []

    def look(runner: Runner, **_) -> None:
        stats = runner.optim_wrapper.last_stats
        seen.append({key: float(stats[key]) for key in ONE_PASS})

    watch(runner, after_train_iter=look)
    runner.train()
    rows = logged(tmp_path)
    assert len(rows) == len(seen) == 36
    starts = [max(start for start in (0, 6, 18) if start <= i) for i in range(36)]
    for key in ONE_PASS:
        for i, (start, row) in enumerate(zip(starts, rows, strict=True)):
            values = [each[key] for each in seen[max(start, i - 9) : i + 1]]
            assert row[key] == pytest.approx(sum(values) / len(values), rel=1e-5), (key, i)
    assert [list(row) for row in rows] == [list(rows[0])] * 36


@pytest.mark.parametrize('killed_at', [6, 13, 20])
def test_means_of_a_resumed_run(tmp_path, killed_at):
    """Where it is resumed from the last iteration of a phase, and within one."""
    cfg = settings(tmp_path / 'whole', log_processor=MEANS)
    cfg['default_hooks']['logger']['interval'] = 1
    train(cfg)
    cfg |= dict(work_dir=str(tmp_path / 'parts'))
    kill_after(cfg, killed_at)
    train(cfg | dict(resume=True))
    whole = {row['step']: row for row in logged(tmp_path / 'whole')}
    parts = {row['step']: row for row in logged(tmp_path / 'parts')}
    assert whole.keys() == parts.keys()
    for step, row in whole.items():
        for key in ONE_PASS:
            assert parts[step][key] == pytest.approx(row[key], rel=1e-6), (step, key)


@pytest.mark.parametrize(
    ('cheap', 'has_ratio'),
    [(dict(every=4), True), (dict(direction='previous', every=4), False)],
    ids=str,
)
def test_steps_between_say_what_the_last_one_did(tmp_path, cheap, has_ratio):
    """Also where a phase begins between two, of which nothing is known then."""
    wrapper = settings('')['optim_wrapper'] | cheap
    train(settings(tmp_path, optim_wrapper=wrapper))
    rows = logged(tmp_path)
    assert [row['step'] for row in rows] == list(range(2, 37, 2))
    assert all(('loss_ratio' in row) == has_ratio for row in rows)
    assert all(row['mean_rho'] > 0 for row in rows if row['step'] in (6, 14, 16, 18, 26, 36))
