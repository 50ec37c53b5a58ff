# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import itertools

import numpy as np
import pytest

from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.pruning import Budget, select_channels
from mmdet_adasap.pruning.cost import Cost
from mmdet_adasap.pruning.selection import minimum_counts


def problem(seed: int, groups: int = 5, most: int = 30):
    """Groups in a chain of weights with some fixed parts, scores with many ties."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most, groups)
    cost = Cost(groups)
    cost.add(int(rng.integers(0, 50)), (1, {}))
    for g in range(groups):
        nearby = {int(h): float(rng.integers(1, 4)) for h in {g, (g + 1) % groups}}
        cost.add(int(rng.integers(1, 10)), (int(rng.integers(0, 5)), nearby), (1, {g: 1.0}))
    scores = [rng.integers(0, 8, n) / 4.0 for n in sizes]
    return scores, [np.ones(n, dtype=bool) for n in sizes], cost, sizes


def counts_of(kept):
    return np.array([k.sum() for k in kept])


@pytest.mark.parametrize('round_to', [1, 4, 8])
@pytest.mark.parametrize('seed', range(15))
def test_within_the_limit_and_by_less_than_a_step(seed, round_to):
    scores, full, cost, sizes = problem(seed)
    dense, least = cost(sizes), cost(minimum_counts(sizes, round_to))
    for fraction in (0.9, 0.5, 0.25):
        limit = max(fraction * dense, least)
        kept = select_channels(scores, full, Budget([(cost, limit)]), round_to)
        counts = counts_of(kept)
        assert cost(counts) <= limit
        for g, size in enumerate(sizes):
            # A multiple, or all of it; never nothing; small groups whole.
            assert counts[g] == size or counts[g] % round_to == 0
            assert counts[g] >= min(size, round_to)
            # Nothing less important is kept than what went.
            if counts[g] < size:
                assert scores[g][kept[g]].min() >= scores[g][~kept[g]].max()
                more = counts.copy()
                more[g] = min(size, (counts[g] // round_to + 1) * round_to)
                assert cost(more) > limit


def test_least_important_of_all_groups_go_first():
    cost = Cost(2)
    cost.add(1, (0, {0: 1.0}))
    cost.add(1, (0, {1: 1.0}))
    scores = [np.array([5.0, 1.0, 3.0]), np.array([2.0, 4.0, 6.0])]
    kept = select_channels(scores, [np.ones(3, dtype=bool)] * 2, Budget([(cost, 3)]))
    assert [k.tolist() for k in kept] == [[True, False, False], [False, True, True]]


def test_a_step_counts_by_its_mean():
    cost = Cost(2)
    cost.add(1, (0, {0: 1.0}))
    cost.add(1, (0, {1: 1.0}))
    scores = [np.array([0.0, 9.0, 9.0, 9.0]), np.array([3.0, 4.0, 9.0, 9.0])]
    kept = select_channels(scores, [np.ones(4, dtype=bool)] * 2, Budget([(cost, 6)]), round_to=2)
    assert [k.tolist() for k in kept] == [[True] * 4, [False, False, True, True]]


@pytest.mark.parametrize('seed', range(10))
def test_events_are_nested(seed):
    scores, kept, cost, sizes = problem(seed)
    rng = np.random.default_rng(seed)
    for fraction in (0.8, 0.6, 0.4, 0.3):
        before = kept
        limit = max(fraction * cost(sizes), cost(minimum_counts(sizes, 2)))
        kept = select_channels(
            [s + rng.random(len(s)) for s in scores], before, Budget([(cost, limit)]), 2
        )
        assert cost(counts_of(kept)) <= limit
        assert all((b | ~k).all() for b, k in zip(before, kept, strict=True))


def test_nothing_happens_within_the_limit():
    scores, full, cost, sizes = problem(0)
    kept = select_channels(scores, full, Budget([(cost, cost(sizes))]))
    assert all(k.all() for k in kept)
    kept[0][0] = False
    assert full[0][0]


@pytest.mark.parametrize('seed', range(10))
def test_smallest_target_is_reached_and_no_less(seed):
    scores, full, cost, sizes = problem(seed)
    least = cost(minimum_counts(sizes, 4))
    kept = select_channels(scores, full, Budget([(cost, least)]), 4)
    assert counts_of(kept).tolist() == minimum_counts(sizes, 4).tolist()
    with pytest.raises(
        UnreachableTargetError, match=rf'{least - 1} cannot be reached: {least} remain'
    ):
        select_channels(scores, full, Budget([(cost, least - 1)]), 4)


@pytest.mark.parametrize('seed', range(30))
def test_what_is_given_back(seed):
    """Against a transcription: remove step by step, then give back from the top."""
    scores, full, cost, sizes = problem(seed, groups=3, most=5)
    scores = [s + np.arange(len(s)) * 1e-6 * (g + 1) for g, s in enumerate(scores)]
    limit = max(0.5 * cost(sizes), cost(np.ones(3)))
    everyone = sorted((s, g, i) for g, ss in enumerate(scores) for i, s in enumerate(ss))
    left, gone = [set(range(n)) for n in sizes], []
    for _, g, i in everyone:
        if cost(np.array([len(p) for p in left])) <= limit:
            break
        if len(left[g]) > 1:
            left[g].remove(i)
            gone.append((g, i))
    stopped = set()
    for g, i in reversed(gone):
        left[g].add(i)
        if g in stopped or cost(np.array([len(p) for p in left])) > limit:
            left[g].remove(i)
            stopped.add(g)
    kept = select_channels(scores, full, Budget([(cost, limit)]))
    assert [set(np.flatnonzero(k)) for k in kept] == left


def test_no_larger_choice_keeps_all_that_was_kept():
    """Over every choice of counts: none holds this one and fits as well."""
    for seed in range(10):
        scores, full, cost, sizes = problem(seed, groups=3, most=6)
        limit = max(0.4 * cost(sizes), cost(np.ones(3)))
        counts = counts_of(select_channels(scores, full, Budget([(cost, limit)])))
        for other in itertools.product(*(range(1, n + 1) for n in sizes)):
            if (np.array(other) >= counts).all() and tuple(counts) != other:
                assert cost(np.array(other)) > limit


@pytest.mark.parametrize('ratio', [0.9, 0.75, 0.5])
@pytest.mark.parametrize('round_to', [1, 8])
def test_no_group_loses_more_than_the_largest_share(ratio, round_to):
    sizes = np.array([64, 40, 10, 3, 1])
    cost = Cost(len(sizes))
    for g in range(len(sizes)):
        cost.add(1, (0, {g: 1.0}))
    # The first two groups would be emptied before the others are touched.
    scores = [np.arange(n) + 1000.0 * (n < 20) for n in sizes]
    least = minimum_counts(sizes, round_to, ratio)
    full = [np.ones(n, dtype=bool) for n in sizes]
    kept = counts_of(
        select_channels(scores, full, Budget([(cost, int(least.sum()))]), round_to, least)
    )
    assert (kept >= np.minimum(np.ceil(np.round((1 - ratio) * sizes, 9)), sizes)).all()
    assert kept.tolist() == least.tolist()
    with pytest.raises(UnreachableTargetError):
        select_channels(scores, full, Budget([(cost, int(least.sum()) - 1)]), round_to, least)


def test_largest_share_is_exact_where_floats_are_not():
    """(1 - 0.7) * 10 is 3.0000000000000004, and 3 channels are meant."""
    assert minimum_counts(np.array([10, 100, 7]), 1, 0.7).tolist() == [3, 30, 3]
    assert minimum_counts(np.array([10, 100, 7]), 8, 0.9).tolist() == [8, 16, 7]
    assert minimum_counts(np.array([10, 100]), 1, 1.0).tolist() == [1, 1]


class Bumpy:
    """A cost of device's kind: it has plateaus, and may be higher where a channel less is kept."""

    def __init__(self, seed: int, sizes: np.ndarray) -> None:
        rng = np.random.default_rng(seed)
        stairs = [np.ceil(np.arange(size + 1) / 4) * rng.integers(10, 99) for size in sizes]
        self.steps = [s * rng.uniform(0.8, 1.3, len(s)) for s in stairs]

    def __call__(self, kept: np.ndarray) -> int:
        return round(sum(step[k] for step, k in zip(self.steps, kept, strict=True)))


@pytest.mark.parametrize('seed', range(20))
def test_no_limit_is_exceeded_where_costs_go_up_and_down(seed):
    scores, full, cost, sizes = problem(seed)
    bumpy = Bumpy(seed, sizes)
    for fraction in (0.8, 0.5, 0.3):
        budget = Budget([(bumpy, fraction * bumpy(sizes)), (cost, 0.7 * cost(sizes))])
        try:
            kept = select_channels(scores, full, budget)
        except UnreachableTargetError:
            assert budget.excess(np.ones(len(sizes), dtype=int))
        else:
            assert budget.excess(counts_of(kept)) == []


def test_a_limit_that_the_smallest_choice_alone_exceeds_is_kept():
    class Dear:
        """One channel costs more than two: its kernel is a slow one."""

        def __call__(self, kept: np.ndarray) -> int:
            return [9, 7, 4, 8][int(kept[0])]

    scores = [np.array([1.0, 2.0, 3.0])]
    kept = select_channels(scores, [np.ones(3, dtype=bool)], Budget([(Dear(), 5)]))
    assert kept[0].tolist() == [False, True, True]


def test_every_limit_holds_and_the_message_names_those_that_cannot():
    one, other = Cost(2), Cost(2)
    one.add(1, (0, {0: 1.0}))
    other.add(10, (0, {1: 1.0}))
    scores, full = [np.arange(8.0), np.arange(8.0)], [np.ones(8, dtype=bool)] * 2
    kept = select_channels(scores, full, Budget([(one, 6, 'params'), (other, 30, 'flops')]))
    assert counts_of(kept).tolist() == [6, 3]
    with pytest.raises(UnreachableTargetError, match=r'^flops 5 cannot be reached: 10') as caught:
        select_channels(scores, full, Budget([(one, 6, 'params'), (other, 5, 'flops')]))
    assert (caught.value.remaining, caught.value.resource) == (10, 'flops')
    with pytest.raises(UnreachableTargetError, match=r'^params 0 and flops 5 cannot.*: 1 and 10 '):
        select_channels(scores, full, Budget([(one, 0, 'params'), (other, 5, 'flops')]))
    with pytest.raises(ValueError, match='is no budget'):
        Budget([])
