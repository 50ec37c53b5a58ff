# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Two gloo processes against one that has the images of both."""

import copy
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner
from processes import Failed, FrozenNormModel, build, in_processes, settings
from torch import nn
from toy import ToyModel

from mmdet_adasap.hooks import AdaSAPHook, adasap_hook
from mmdet_adasap.hooks.runner_parts import averaged_models
from mmdet_adasap.pruning import WrongCut
from mmdet_adasap.pruning.structure import named_tensors
from mmdet_adasap.unwrapping import unwrapped

PHASE_ENDS = (6, 18, 36)
TAYLOR = dict(importance=dict(type='TaylorImportance'))
ONE_PASS = dict(perturbation=None, finetune=None)
EMA = dict(type='EMAHook', momentum=0.1)


def adasap(runner: Runner) -> AdaSAPHook:
    return next(hook for hook in runner.hooks if isinstance(hook, AdaSAPHook))


def at_each_iteration(runner: Runner, look) -> None:
    hook = Hook()
    hook.after_train_iter = lambda *_, **__: look(runner.iter + 1)
    runner.register_hook(hook, priority='LOWEST')


def train(cfg: dict, model: type[ToyModel] = FrozenNormModel) -> dict:
    """Weights when each phase ends, and what was kept; of the EMA copies at the end."""
    runner = build(cfg, model)
    seen = dict(weights={}, kept=[])

    def look(done: int) -> None:
        if done in PHASE_ENDS:
            seen['weights'][done] = copy.deepcopy(named_tensors(unwrapped(runner.model)))
        if adasap(runner).pruner is not None:
            seen['kept'].append(adasap(runner).pruner.masks.counts.tolist())

    at_each_iteration(runner, look)
    runner.train()
    seen['averaged'] = [named_tensors(model) for model in averaged_models(runner)]
    seen['structure'] = adasap(runner).structure
    return seen


def difference(left: dict, right: dict) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


def assert_same(left: dict, right: dict, atol: float) -> None:
    assert left['structure'] == right['structure']
    for done in PHASE_ENDS:
        if done in left['weights'] and done in right['weights']:
            found = difference(left['weights'][done], right['weights'][done])
            assert found <= atol, f'{found} after {done} iterations'
    for one, other in zip(left['averaged'], right['averaged'], strict=True):
        assert difference(one, other) <= atol


def accumulating(cfg: dict, counts: int = 4, **wrapper) -> dict:
    """Steps begin and end inside phases, events and the cut fall between two of them."""
    cfg['optim_wrapper'] = cfg['optim_wrapper'] | dict(accumulative_counts=counts) | wrapper
    return cfg


CASES = {
    'magnitude': lambda d, b: settings(d, batch=b, custom_hooks=[EMA]),
    'taylor': lambda d, b: settings(d, TAYLOR, b),
    'magnitude, accumulated': lambda d, b: accumulating(settings(d, batch=b), 2),
    'taylor, accumulated': lambda d, b: accumulating(settings(d, TAYLOR, b)),
    'taylor, accumulated, one pass': lambda d, b: accumulating(settings(d, TAYLOR | ONE_PASS, b)),
    'taylor, accumulated, plain wrapper': lambda d, b: accumulating(
        settings(d, TAYLOR | ONE_PASS, b), type='OptimWrapper'
    ),
}
WRAPPERS = {
    'find_unused_parameters': dict(find_unused_parameters=True),
    'static_graph': dict(static_graph=True),
    'gradient_as_bucket_view': dict(gradient_as_bucket_view=True),
    'broadcast_buffers': dict(broadcast_buffers=True),
}


class TestTwoProcesses:
    @pytest.mark.parametrize('case', CASES)
    def test_they_equal_one_with_both_batches(self, tmp_path, case):
        ranks = in_processes(train, tmp_path, CASES[case](tmp_path / 'two', 2))
        assert_same(*ranks, atol=0)
        one = train(CASES[case](tmp_path / 'one', 4))
        assert ranks[0]['kept'] == one['kept']
        assert len({tuple(kept) for kept in one['kept']}) == 4
        assert one['weights'].keys() == ranks[0]['weights'].keys() == {*PHASE_ENDS}
        assert_same(ranks[0], one, atol=1e-6)

    @pytest.mark.parametrize('wrapper', WRAPPERS)
    def test_settings_of_the_wrapper(self, tmp_path, wrapper):
        cfg = accumulating(settings(tmp_path / 'two', TAYLOR), 2)
        cfg['model_wrapper_cfg'] = WRAPPERS[wrapper]
        ranks = in_processes(train, tmp_path, cfg)
        assert_same(*ranks, atol=0)
        one = train(accumulating(settings(tmp_path / 'one', TAYLOR, 4), 2))
        assert_same(ranks[0], one, atol=1e-6)
