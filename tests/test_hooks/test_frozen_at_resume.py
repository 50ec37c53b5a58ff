# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A run that is resumed has the channels of the one that was stopped, whatever is frozen now."""

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from _utils.adasap_runs import assert_same_weights, kill_after, train
from _utils.toy import settings


@HOOKS.register_module(force=True)
class Freezing(Hook):
    """Trains the block in some epochs alone; comes before AdaSAPHook looks."""

    priority = 'VERY_HIGH'

    def __init__(self, trained: tuple[int, int]) -> None:
        self.trained = range(*trained)

    def before_train(self, runner) -> None:
        runner.model.block.requires_grad_(runner.epoch in self.trained)

    before_train_epoch = before_train


@pytest.mark.parametrize('kind', ['TaylorImportance', 'MagnitudeImportance'])
@pytest.mark.parametrize('stop', [8, 14])
@pytest.mark.parametrize(
    'trained', [pytest.param((1, 9), id='thaws'), pytest.param((0, 2), id='freezes')]
)
def test_resumed_equals_uninterrupted(kind, stop, trained, tmp_path):
    hook = dict(target=dict(params=0.6), importance=dict(type=kind))
    hooks = [dict(type='Freezing', trained=trained)]
    whole = train(settings(tmp_path / 'whole', hook, custom_hooks=hooks))
    kill_after(settings(tmp_path / 'killed', hook, custom_hooks=hooks), stop)
    resumed = train(settings(tmp_path / 'killed', hook, custom_hooks=hooks, resume=True))
    assert_same_weights(whole.model, resumed.model)
