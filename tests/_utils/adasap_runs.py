# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Runs of the toy model with AdaSAPHook: whole ones, and ones that are killed on the way."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_adasap  # noqa: F401
from _utils.toy import ToyModel, settings
from mmdet_adasap.pruning import named_tensors


def for_testing(work_dir: Path, **kwargs) -> dict:
    """The same for testing what that run ends with on its validation set."""
    cfg = settings(work_dir, **{'load_from': str(work_dir / 'epoch_6.pth'), **kwargs})
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        del cfg[key]
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[f'test{key[3:]}'] = cfg.pop(key)
    return cfg


def build(cfg: dict, **model) -> Runner:
    torch.manual_seed(0)
    cfg = cfg | dict(experiment_name=f'{Path(cfg["work_dir"]).name}_{build.count}')
    build.count += 1
    return Runner(model=ToyModel(**model), **cfg)


build.count = 0


def train(cfg: dict, **model) -> Runner:
    runner = build(cfg, **model)
    runner.train()
    return runner


def assert_same_weights(left: torch.nn.Module, right: torch.nn.Module, atol: float = 1e-6):
    left, right = named_tensors(left), named_tensors(right)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=atol, msg=name)


def watch(runner: Runner, **methods) -> None:
    """Call functions at points of the run, after all other hooks."""
    hook = Hook()
    vars(hook).update(methods)
    runner.register_hook(hook, priority='LOWEST')


class KilledError(Exception):
    """Stands for a run that is killed: nothing of it is left but its files."""


def kill_after(cfg: dict, iterations: int, **model) -> None:
    runner = build(cfg, **model)
    train_step = runner.model.train_step
    done = 0

    def step(*args, **kwargs):
        nonlocal done
        if done == iterations:
            raise KilledError
        done += 1
        return train_step(*args, **kwargs)

    runner.model.train_step = step
    with pytest.raises(KilledError):
        runner.train()
