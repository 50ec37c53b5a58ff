# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch

from _utils.latency_formula import X, formula_table, net
from _utils.nets import runs
from mmdet_adasap.pruning import MagnitudeImportance, Pruner, find_channels, select_timed
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


def test_the_model_stays(table):
    pruner = pruner_for(table, latency=0.5)
    before = {name: p.clone() for name, p in pruner.model.named_parameters()}
    select_timed(pruner, pruner.targets, Clock(pruner, lambda share: 1.2 * share))
    assert all(torch.equal(p, before[name]) for name, p in pruner.model.named_parameters())
    assert pruner.masks.counts.tolist() == pruner.channels.group_sizes.tolist()
