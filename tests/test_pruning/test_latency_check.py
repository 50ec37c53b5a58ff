# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re

import numpy as np
import pytest
import torch

from _utils.latency_formula import X, formula_table, net
from _utils.nets import runs
from mmdet_adasap.errors import LatencyTimingError, UnreachableTargetError
from mmdet_adasap.pruning import (
    MagnitudeImportance,
    Pruner,
    TimedChoice,
    find_channels,
    select_corrected,
    select_timed,
)
from mmdet_adasap.pruning.latency_check import MOST_CUTS, SLOWER


@pytest.fixture(scope='module')
def table():
    return formula_table(find_channels(net(), runs(X)))


class Clock:
    """Times cut copies: what the table says of them, distorted."""

    def __init__(self, pruner: Pruner, distort) -> None:
        self.pruner, self.distort = pruner, distort
        self.shares: list[float] = []
        cost = pruner.limits.costs['latency']
        self._dense = cost(pruner.channels.group_sizes)

    def __call__(self, dense, slim) -> float:
        cut = find_channels(slim, runs(X))
        cost = type(self.pruner.limits.costs['latency'])(cut, self.pruner.target.table)
        self.shares.append(self.distort(cost(cut.group_sizes) / self._dense))
        return self.shares[-1]


def pruner_for(table, **limits) -> Pruner:
    return Pruner(net(), runs(X), dict(limits, table=table), MagnitudeImportance())


CLOCKS = {
    'a part that no cut changes': lambda share: 0.3 + 0.7 * share,
    'steep': lambda share: share**2.4,
    'flat': lambda share: share**0.7,
    'faster throughout': lambda share: 0.8 * share,
}


@pytest.mark.parametrize('clock', CLOCKS.values(), ids=CLOCKS)
def test_a_table_that_is_off(table, clock):
    pruner = pruner_for(table, latency=0.6)
    clock = Clock(pruner, clock)
    choice = select_timed(pruner, pruner.targets, clock)
    assert 0.6 * 0.95 < choice.measured <= 0.6 * (1 + SLOWER)
    assert 1 < len(clock.shares) <= MOST_CUTS
    # What is cut now holds the limit that was corrected.
    pruner.remove(choice.kept)
    assert pruner.is_within_target


def test_a_correction_is_of_the_whole_schedule(table):
    """Each event then leaves what it shall by the clock; the first one no more than its share."""
    pruner = pruner_for(table, latency=0.5)
    clock = Clock(pruner, CLOCKS['a part that no cut changes'])
    choice = select_timed(pruner, pruner.targets, clock)
    pruner.limits.correction = choice.own_correction
    for fraction in (0.95, 0.8, 0.65):
        kept = pruner.select(dict(latency=fraction))
        counts = np.array([k.sum() for k in kept])
        assert clock(pruner.model, pruner.cut_copy(kept)) == pytest.approx(fraction, abs=0.02)
        assert pruner.limits.left('latency', counts) == pytest.approx(fraction, abs=0.02)


def test_a_good_table_is_timed_once(table):
    pruner = pruner_for(table, latency=0.5)
    clock = Clock(pruner, lambda share: share)
    select_timed(pruner, pruner.targets, clock)
    assert len(clock.shares) == 1


def test_what_cannot_be_reached_ends_with_the_fastest(table):
    pruner = pruner_for(table, latency=0.5)
    clock = Clock(pruner, lambda share: 0.9 + 0.1 * share)
    choice = select_timed(pruner, pruner.targets, clock)
    assert choice.measured == min(clock.shares)
    assert len(clock.shares) <= MOST_CUTS


def test_another_limit_may_leave_the_network_faster(table):
    pruner = pruner_for(table, latency=0.9, params=0.1)
    clock = Clock(pruner, lambda share: share)
    choice = select_timed(pruner, pruner.targets, clock)
    assert len(clock.shares) == 1
    assert choice.measured < 0.8
    counts = np.array([k.sum() for k in choice.kept])
    assert pruner.limits.left('params', counts) <= 0.1


def freeze(model) -> None:
    for layer in (model.conv3, model.dw, model.fc):
        layer.requires_grad_(False)


def test_a_correction_that_frozen_layers_do_not_allow_is_lowered(table):
    """By the table alone the target can be reached, and a table that is off must not end a run."""
    pruner = pruner_for(table, latency=0.6)
    freeze(pruner.model)
    kept = pruner.select(pruner.targets)
    pruner.limits.correction = 1.2
    with pytest.raises(UnreachableTargetError):
        pruner.select(pruner.targets)
    lowered = select_corrected(pruner, pruner.targets)
    assert 1 <= pruner.limits.correction < 1.2
    counts = [np.array([k.sum() for k in each]) for each in (kept, lowered)]
    assert (counts[1] <= counts[0]).all()
    pruner.limits.correction = 1.2
    choice = select_timed(pruner, pruner.targets, Clock(pruner, lambda share: 0.2 + 0.8 * share))
    assert choice.measured < 0.75


def test_what_even_the_table_does_not_allow_is_refused(table):
    pruner = pruner_for(table, latency=0.6)
    freeze(pruner.model)
    pruner.limits.correction = 1.2
    with pytest.raises(UnreachableTargetError):
        select_corrected(pruner, dict(latency=0.2))
    assert pruner.limits.correction == 1.2


def test_the_message_counts_as_the_clock_does(table):
    """What it says to ask for can be reached."""
    pruner = pruner_for(table, latency=0.6)
    freeze(pruner.model)
    pruner.limits.correction = 1.2
    with pytest.raises(UnreachableTargetError) as error:
        pruner.select(dict(latency=0.3))
    wanted = re.search(
        r'set target=dict\(latency=(0\.\d+), table=\.\.\.\) or more', str(error.value)
    )
    assert float(wanted[1]) > 0.3
    pruner.select(dict(latency=float(wanted[1])))


def test_no_memory_for_a_copy_is_no_time(table, monkeypatch):
    pruner = pruner_for(table, latency=0.6)

    def cut_copy(kept):
        raise RuntimeError('CUDA out of memory')

    monkeypatch.setattr(pruner, 'cut_copy', cut_copy)
    with pytest.raises(LatencyTimingError, match='out of memory'):
        select_timed(pruner, pruner.targets, lambda dense, slim: 0.6)


def test_what_was_timed_before_a_failure_counts(table):
    pruner, shares = pruner_for(table, latency=0.6), [0.7]

    def time_share(dense, slim):
        if not shares:
            raise LatencyTimingError('the disk is full')
        return shares.pop()

    assert select_timed(pruner, pruner.targets, time_share).measured == 0.7


def test_a_cut_that_is_slower_than_the_dense_network_is_not_the_last(table):
    pruner = pruner_for(table, latency=0.6)
    clock = Clock(pruner, lambda share: 2 * share)
    choice = select_timed(pruner, pruner.targets, clock)
    assert clock.shares[0] > 1
    assert choice.measured < 0.75


@pytest.mark.parametrize('correction', [0.8, 1.0, 1.2])
def test_a_choice_for_its_limit_is_not_loose(correction):
    limit = 1 - 0.4 * correction
    assert not TimedChoice([], limit, 0.5, correction).is_loose(0.6, 0.97)
    assert TimedChoice([], 0.9 * limit, 0.5, correction).is_loose(0.6, 0.97)


def test_the_model_stays(table):
    pruner = pruner_for(table, latency=0.5)
    before = {name: p.clone() for name, p in pruner.model.named_parameters()}
    select_timed(pruner, pruner.targets, Clock(pruner, lambda share: 1.2 * share))
    assert all(torch.equal(p, before[name]) for name, p in pruner.model.named_parameters())
    assert pruner.masks.counts.tolist() == pruner.channels.group_sizes.tolist()
