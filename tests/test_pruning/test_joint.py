# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The joint choice of all groups, against every choice there is."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_adasap.apis import prune_model
from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.pruning import (
    Budget,
    check_objective,
    check_solver,
    select_channels,
    select_jointly,
)
from mmdet_adasap.pruning.cost import Cost, CostTables
from mmdet_adasap.pruning.joint import OBJECTIVES, choose_jointly
from mmdet_adasap.pruning.selection import minimum_counts
from small_networks import every_choice, measured_tables, network, options_of, values_of

SHARES = (0.3, 0.5, 0.7)


def one_cost(seed: int) -> tuple[Cost, np.ndarray, list[np.ndarray]]:
    """What a network costs, its sizes and scores."""
    (cost,), sizes, scores, _ = network(np.random.default_rng(seed))
    return cost, sizes, scores


def limits_of(tables: list[CostTables], seed: int) -> list[float]:
    """Limits between the cheapest and the dearest choice, other shares for each resource."""
    found = []
    for number, costs in enumerate(tables):
        least, most = (sum(t.flat[i] for _, t in costs.tables) for i in (0, -1))
        share = SHARES[(seed + number * (seed // 3)) % 3]
        # No choice costs just as much: the tables are of whole numbers.
        found.append(np.floor(costs.constant + least + share * (most - least)) + 0.25)
    return found


def gap_to_best(values: list, tables: list[CostTables], limits: list[float]) -> float | None:
    """Share of the best value that the choice lacks; it has to be within every limit."""
    worth, costs = every_choice(values, tables)
    fits = (costs <= np.reshape(limits, (-1, *[1] * worth.ndim))).all(axis=0)
    choice = choose_jointly(values, tables, limits)
    if choice is None:
        assert not fits.any()
        return None
    assert fits[tuple(choice)]
    return 1 - worth[tuple(choice)] / worth[fits].max()


@pytest.mark.parametrize(('resources', 'cases'), [(1, 80), (2, 30), (3, 30)])
def test_nearly_the_best_choice_and_never_above_a_limit(resources, cases):
    gaps = []
    for seed in range(cases):
        costs, sizes, scores, _ = network(np.random.default_rng(seed), resources)
        options = options_of(sizes, 8 if seed % 2 else 16)
        tables = [cost.tables(options) for cost in costs]
        limits = [
            SHARES[(seed + number * (seed // 3)) % 3] * cost(sizes)
            for number, cost in enumerate(costs)
        ]
        gaps.append(gap_to_best(values_of(scores, options), tables, limits))
    gaps = np.array([gap for gap in gaps if gap is not None])
    assert len(gaps) > 0.85 * cases
    assert (gaps < 1e-9).mean() >= 0.9
    assert gaps.mean() <= 0.002


@pytest.mark.parametrize('resources', [1, 2])
def test_stairs_of_a_device_are_no_trouble(resources):
    """Measured tables are no products, and have plateaus."""
    gaps = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        _, sizes, scores, _ = network(rng)
        options = options_of(sizes, 8 if seed % 2 else 16)
        tables = [measured_tables(rng, options) for _ in range(resources)]
        gaps.append(gap_to_best(values_of(scores, options), tables, limits_of(tables, seed)))
    gaps = np.array(gaps)
    assert (gaps < 1e-9).mean() >= 0.9
    assert gaps.mean() <= 0.002


def test_costs_that_add_up_are_shared_out_in_the_best_way():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(16, 49, 4)
        options = options_of(sizes, 8)
        values = [np.cumsum(rng.lognormal(0, 0.5, len(o)))[::-1].cumsum() for o in options]
        tables = [measured_tables(rng, options, additive=True) for _ in range(1 + seed % 2)]
        assert gap_to_best(values, tables, limits_of(tables, seed)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('seed', range(20))
def test_no_limit_is_exceeded_where_costs_go_up_and_down(seed):
    rng = np.random.default_rng(seed)
    _, sizes, scores, _ = network(rng)
    options = options_of(sizes, 8)
    tables = measured_tables(rng, options)
    noisy = [(groups, t * rng.uniform(0.7, 1.4, t.shape)) for groups, t in tables.tables]
    tables = [tables._replace(tables=noisy)]
    values = values_of(scores, options)
    _, costs = every_choice(values, tables)
    for limit in np.quantile(costs, (0.0005, 0.05, 0.5)):
        choice = choose_jointly(values, tables, [limit])
        assert choice is None or costs[0][tuple(choice)] <= limit * (1 + 1e-12)
        assert choice is not None or limit < costs[0].flat[0]


def test_a_cost_that_rounds_otherwise_than_its_tables_keeps_its_limit():
    class RoundedUp(Cost):
        def __call__(self, kept: np.ndarray) -> int:
            return super().__call__(kept) + int(kept.sum() % 3)

    cost = RoundedUp(2)
    cost.add(1, (0, {0: 1.0}))
    cost.add(1, (0, {1: 1.0}))
    scores, full = [np.arange(9.0), np.arange(9.0)], [np.ones(9, dtype=bool)] * 2
    for limit in range(5, 18):
        budget = Budget([(cost, limit)])
        counts = np.array([k.sum() for k in select_jointly(scores, full, budget)])
        assert budget.holds(counts)
        assert counts.sum() >= limit - 4


@pytest.mark.parametrize('seed', range(5))
def test_tables_add_up_to_the_cost(seed):
    cost, sizes, _ = one_cost(seed)
    cost.add(2.0, (1, {0: 2.0}), (3, {1: 1.0}), (0, {0: 1.0, 2: 1.0}))  # an axis more
    cost.add(7, (5, {}))
    options = options_of(sizes, 16)
    tables = cost.tables(options)
    for choice in itertools.islice(itertools.product(*map(range, map(len, options))), 50):
        expected = cost(np.array([o[i] for o, i in zip(options, choice, strict=True)]))
        found = sum(table[tuple(choice[g] for g in groups)] for groups, table in tables.tables)
        assert tables.constant + found == pytest.approx(expected, abs=0.51)


@pytest.mark.parametrize('round_to', [1, 8])
@pytest.mark.parametrize('seed', range(6))
def test_more_importance_than_by_ranks_at_the_same_cost(seed, round_to):
    cost, sizes, scores = one_cost(seed)
    present = [np.ones(size, dtype=bool) for size in sizes]
    present[0][3] = False  # removed before
    scores[1][5] = np.inf  # has to stay
    scores[1][6] = -1.0
    limit = 0.5 * cost(sizes)
    least = minimum_counts(sizes, round_to, 0.9)
    kept = select_jointly(scores, present, Budget([(cost, limit)]), round_to, least)
    ranked = select_channels(scores, present, Budget([(cost, limit)]), round_to, least)
    counts = np.array([k.sum() for k in kept])
    assert cost(counts) <= limit
    assert not kept[0][3]
    assert kept[1][5]
    assert (counts >= least).all()
    for g, size in enumerate(sizes):
        assert counts[g] in (size, present[g].sum()) or counts[g] % round_to == 0
        gone = present[g] & ~kept[g]
        if gone.any():
            assert scores[g][kept[g]].min() >= scores[g][gone].max()
    finite = [np.where(np.isinf(s), 0, s) for s in scores]
    worth = [sum(s[k].sum() for s, k in zip(finite, how, strict=True)) for how in (kept, ranked)]
    assert worth[0] >= worth[1] * (1 - 1e-9)


def test_nothing_to_do_and_nothing_possible():
    cost, sizes, scores = one_cost(0)
    present = [np.ones(size, dtype=bool) for size in sizes]
    whole = select_jointly(scores, present, Budget([(cost, cost(sizes))]))
    assert all(k.all() for k in whole)
    with pytest.raises(UnreachableTargetError, match='keeps the least it may'):
        select_jointly(scores, present, Budget([(cost, 1)]))
    fixed = Cost(0)
    fixed.add(7)
    for select in (select_jointly, select_channels):
        with pytest.raises(UnreachableTargetError, match='7 remain'):
            select([], [], Budget([(fixed, 5)]))


def test_equal_scores_are_no_trouble():
    cost, sizes, _ = one_cost(1)
    present = [np.ones(size, dtype=bool) for size in sizes]
    for value in (0.0, 1.0):
        scores = [np.full(size, value) for size in sizes]
        for objective in OBJECTIVES:
            budget = Budget([(cost, 0.4 * cost(sizes))])
            kept = select_jointly(scores, present, budget, 4, objective=objective)
            assert budget.holds(np.array([k.sum() for k in kept]))


@pytest.mark.parametrize('seed', range(8))
def test_the_logarithm_is_of_the_share_that_each_group_keeps_of_what_it_has(seed):
    """Against every choice; a scale of a group's scores changes nothing."""
    cost, sizes, scores = one_cost(seed)
    present = [np.ones(size, dtype=bool) for size in sizes]
    present[0][:8] = False
    now = np.array([p.sum() for p in present])
    options = options_of(now, 8)
    shares = [
        np.cumsum(np.sort(s[p])[::-1])[o - 1] / s[p].sum()
        for s, p, o in zip(scores, present, options, strict=True)
    ]
    worth, costs = every_choice([np.log(s) for s in shares], [cost.tables(options)])
    budget = Budget([(cost, 0.4 * cost(now))])
    found = []
    for scale in (1.0, 1000.0):
        scaled = [scores[0] * scale, *scores[1:]]
        kept = select_jointly(scaled, present, budget, 8, objective='log')
        found.append(np.array([k.sum() for k in kept]))
    assert found[0].tolist() == found[1].tolist()
    assert budget.holds(found[0])
    best = worth[costs[0] <= budget.limits[0].most].max()
    place = tuple(int(np.searchsorted(o, n)) for o, n in zip(options, found[0], strict=True))
    assert worth[place] >= best - 0.05  # as one layer with 0.95 of its share


def test_the_logarithm_cuts_no_group_as_deep():
    """One layer is less important in all: the sum empties it."""
    cost = Cost(2)
    cost.add(1, (0, {0: 1.0}))
    cost.add(1, (0, {1: 1.0}))
    scores, full = [np.full(64, 1.0), np.full(64, 2.0)], [np.ones(64, dtype=bool)] * 2
    by_sum, by_log = (
        select_jointly(scores, full, Budget([(cost, 64)]), 8, objective=objective)
        for objective in ('sum', 'log')
    )
    assert [int(k.sum()) for k in by_sum] == [8, 56]
    assert [int(k.sum()) for k in by_log] == [32, 32]


def test_the_logarithm_passes_over_groups_of_no_importance_and_channels_that_stay():
    cost = Cost(3)
    for g in range(3):
        cost.add(1, (0, {g: 1.0}))
    scores = [np.zeros(16), np.full(16, np.inf), np.linspace(-1, 1, 16)]
    full = [np.ones(16, dtype=bool)] * 3
    kept = select_jointly(scores, full, Budget([(cost, 26)]), 4, objective='log')
    counts = [int(k.sum()) for k in kept]
    assert counts[:2] == [4, 16]
    assert sum(counts) <= 26


def test_prune_model_takes_it():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 4, 1)
    )
    image = torch.randn(1, 3, 16, 16)
    structure = prune_model(
        model, inputs=image, target=dict(flops=0.4), round_to=1, solver='joint'
    )
    assert 0.35 < structure['reached']['flops'] <= 0.4
    with pytest.raises(ValueError, match=r"solver='jont' is unknown.*did you mean 'joint'"):
        prune_model(model, inputs=image, solver='jont')
    check_solver('ranked')


def test_prune_model_takes_an_objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 4, 1))
    image = torch.randn(1, 3, 16, 16)
    structure = prune_model(
        model, inputs=image, target=dict(flops=0.4), round_to=1, solver='joint', objective='log'
    )
    assert structure['reached']['flops'] <= 0.4
    with pytest.raises(ValueError, match=r"objective='log' is for solver='joint'"):
        prune_model(model, inputs=image, objective='log')
    with pytest.raises(ValueError, match=r"objective='logs' is unknown.*did you mean 'log'"):
        prune_model(model, inputs=image, solver='joint', objective='logs')
    check_objective('sum', 'ranked')
