# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Layers that do not train, or get no gradient, at a time after AdaSAPHook has looked."""

import pytest
import torch

from _utils.adasap_runs import build, watch
from _utils.toy import ToyModel, settings
from mmdet_adasap.errors import UnreachableTargetError

TAYLOR, MAGNITUDE = dict(type='TaylorImportance'), dict(type='MagnitudeImportance')
# Events are after iterations 9, 12, 15 and 18 of 36, six of which are an epoch.


def run_of(tmp_path, **hook):
    """A run of single passes, which take half of the time."""
    return build(settings(tmp_path, hook=dict(perturbation=None, finetune=None, **hook)))


def set_trained(runner, trained: bool, layer: str = 'block') -> None:
    runner.model.get_submodule(layer).requires_grad_(trained)


def freeze_at(runner, point: str) -> None:
    """Freeze the block in a hook after AdaSAPHook, in the model's train(), or in an iteration."""
    if point == 'train()':

        def freezing_train(mode=True):
            ToyModel.train(runner.model, mode)
            if mode and runner.epoch >= 1:
                set_trained(runner, False)
            return runner.model

        runner.model.train = freezing_train
    elif point.isdigit():
        watch(
            runner,
            before_train_iter=lambda *_, **__: (
                set_trained(runner, False) if runner.iter == int(point) else None
            ),
        )
    else:
        watch(runner, **{point: lambda *_: set_trained(runner, False)})


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ('point', 'importance'),
    [
        ('before_train', TAYLOR),
        ('before_train_epoch', MAGNITUDE),
        ('train()', TAYLOR),
        ('10', MAGNITUDE),
        pytest.param('before_train', MAGNITUDE, marks=LONG),
        pytest.param('before_train_epoch', TAYLOR, marks=LONG),
        pytest.param('train()', MAGNITUDE, marks=LONG),
        pytest.param('10', TAYLOR, marks=LONG),
    ],
)
def test_frozen_layers_keep_the_channels_they_have(tmp_path, point, importance):
    runner = run_of(tmp_path, importance=importance, target=dict(params=0.6))
    left = {}

    def look(runner, *_, **__):
        adasap = runner.hooks[[type(h).__name__ for h in runner.hooks].index('AdaSAPHook')]
        if adasap.pruner is not None:
            groups, counts = adasap.pruner.channels.groups, adasap.pruner.masks.counts
            left[runner.iter + 1] = dict(zip([g.name for g in groups], counts, strict=True))

    freeze_at(runner, point)
    watch(runner, after_train_iter=look)
    runner.train()
    dense = sum(p.numel() for p in ToyModel().parameters())
    assert sum(p.numel() for p in runner.model.parameters()) <= 0.6 * dense
    frozen_from = 9 if point == '10' else 6
    assert left[frozen_from]['block.conv1'] == runner.model.block.conv1.out_channels
    # The second convolution of the block is tied to the stem.
    assert left[frozen_from]['stem.0'] == runner.model.block.conv2.out_channels
    if point != '10':
        assert runner.model.block.conv1.out_channels == 16
    text = next(tmp_path.rglob('*.log')).read_text()
    assert text.count('while they are not trained: block.conv2, block.conv1') == 1


@pytest.mark.parametrize('importance', [TAYLOR, pytest.param(MAGNITUDE, marks=LONG)])
def test_layers_that_train_again_are_pruned_again(tmp_path, importance):
    """And what was removed of them before stays at zero."""
    runner = run_of(tmp_path, importance=importance)
    checked = []

    def freeze(runner, *_, **__):
        if runner.iter in (5, 13):  # before the first event and thaw after it; then again
            set_trained(runner, False)
        if runner.iter in (10, 16):
            set_trained(runner, True)

    def look(runner, *_, **__):
        adasap = runner.hooks[[type(h).__name__ for h in runner.hooks].index('AdaSAPHook')]
        if adasap.pruner is None or runner.iter < 9:
            return
        keep = adasap.pruner.structure('prune')['keep']
        for axis, kept in keep.get('block.conv1.weight', {}).items():
            gone = torch.ones(16 if axis == 0 else 8, dtype=torch.bool)
            gone[kept] = False
            weight = runner.model.block.conv1.weight
            assert not weight.movedim(axis, 0)[gone].any(), runner.iter
            checked.append(runner.iter)

    watch(runner, before_train_iter=freeze, after_train_iter=look)
    runner.train()
    assert {15, 16} <= set(checked)
    assert runner.model.block.conv1.out_channels < 16


@pytest.mark.parametrize('importance', [TAYLOR, MAGNITUDE])
def test_target_that_cannot_be_reached_any_more(tmp_path, importance):
    runner = run_of(tmp_path, importance=importance)

    def freeze(runner):
        for layer in ('block', 'left', 'right', 'fc', 'stem'):
            set_trained(runner, False, layer)

    watch(runner, before_train=freeze)
    with pytest.raises(UnreachableTargetError) as error:
        runner.train()
    assert 'not trained now: ' in str(error.value)
    for layer in ('stem.0', 'block.conv1', 'left', 'right', 'fc'):
        assert layer in str(error.value)
    assert 'at least 1.0000 remain' in str(error.value)
    assert str(error.value).endswith('; train these layers up to the last event')


class SometimesOff(torch.nn.Conv2d):
    """Runs in some training steps only, as with stochastic depth."""

    runs = True

    def forward(self, x):
        if self.training and not self.runs:
            return x.new_zeros(len(x), self.out_channels, *x.shape[2:])
        return super().forward(x)


@pytest.mark.parametrize('interval', [1, 3])
def test_branch_that_did_not_run_is_not_cut_first(tmp_path, interval):
    """It has run before: its last effects count, so that the target is reached."""
    runner = run_of(tmp_path, importance=TAYLOR, interval=interval)
    runner.model.left.__class__ = SometimesOff
    with torch.no_grad():
        runner.model.fc.weight[:, :32] *= 10  # what the branch returns matters much
    seen = []

    def skip(runner, *_, **__):
        runner.model.left.runs = runner.iter % 4 < 2 and runner.iter < 12

    def look(runner, *_, **__):
        if runner.iter == 17:
            seen.append(runner.model.left.out_channels)

    watch(runner, before_train_iter=skip, after_train_iter=look)
    runner.train()
    assert seen[0] >= 6


def test_branch_that_never_ran_is_not_cut(tmp_path):
    runner = run_of(tmp_path, importance=TAYLOR, target=dict(params=0.6))
    runner.model.left.__class__ = SometimesOff
    watch(runner, before_train_iter=lambda *_, **__: setattr(runner.model.left, 'runs', False))
    runner.train()
    assert runner.model.left.out_channels == 8
