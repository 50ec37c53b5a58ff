# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Runs that are killed at random moments, and resumed until they are through."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

import mmdet_adasap  # noqa: F401
from _utils.processes import FrozenNormModel, build, free_port, join_group
from _utils.toy import loader, settings

TWO = 'two processes'
CASES = {
    'plain': {},
    'EMA': dict(custom_hooks=[dict(type='EMAHook', momentum=0.1, update_buffers=True)]),
    'bfloat16': dict(optim_wrapper=dict(type='AdaSAPAmpOptimWrapper', dtype='bfloat16')),
    'AdamW': dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.003, weight_decay=0.01))),
    'Taylor, accumulated': dict(
        adasap=dict(importance=dict(type='TaylorImportance')),
        optim_wrapper=dict(accumulative_counts=2, clip_grad=dict(max_norm=1.0)),
    ),
    'ExpMomentumEMA, settings by layer': dict(
        custom_hooks=[dict(type='EMAHook', ema_type='mmdet.ExpMomentumEMA', momentum=0.01)],
        optim_wrapper=dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_lr_mult=2.0)),
    ),
    TWO: dict(train_dataloader=loader(batch_size=2)),
}


def killable(work_dir: Path, case: str) -> dict:
    """Six epochs of six iterations, with checkpoints that are written in one piece."""
    changes = dict(CASES[case])
    cfg = settings(work_dir, changes.pop('adasap', None), log_level='ERROR')
    cfg['optim_wrapper'] |= changes.pop('optim_wrapper', {})
    cfg['default_hooks']['checkpoint'] = dict(
        type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2
    )
    return cfg | changes


def run(work_dir: Path, case: str, group: tuple | None) -> None:
    if group:
        join_group(*group)
    build(killable(work_dir, case) | dict(resume=True), FrozenNormModel).train()


def start(work_dir: Path, case: str) -> list[multiprocessing.Process]:
    # Forked, so that what takes seconds to import is there.
    context, port = multiprocessing.get_context('fork'), free_port()
    groups = [(rank, 2, port) for rank in (0, 1)] if case == TWO else [None]
    processes = [context.Process(target=run, args=(work_dir, case, group)) for group in groups]
    for process in processes:
        process.start()
    return processes


def tensors(value: object, name: str = '') -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else ()
    return {k: t for key, v in items for k, t in tensors(v, f'{name}.{key}').items()}


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_equals_the_uninterrupted_run(case, tmp_path):
    begun = time.monotonic()
    for process in start(tmp_path / 'whole', case):
        process.join(120)
        assert process.exitcode == 0
    length = time.monotonic() - begun

    rng, kills, work_dir = random.Random(case), 0, tmp_path / 'killed'
    for _ in range(30):
        processes = start(work_dir, case)
        processes[0].join(rng.uniform(0.05, 0.3) * length if kills < 10 else 120)
        if processes[0].exitcode is None:
            for process in rng.sample(processes, len(processes)):
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                time.sleep(rng.uniform(0, 0.1))  # meanwhile the other one goes on, or waits
            kills += 1
            continue
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        break
    assert kills >= 3
    expected, found = (
        tensors(torch.load(folder / 'epoch_6.pth', weights_only=False))
        for folder in (tmp_path / 'whole', work_dir)
    )
    assert expected.keys() == found.keys()
    assert any('optimizer' in name for name in expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
