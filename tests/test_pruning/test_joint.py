# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The joint choice of all groups, against every choice there is."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_adasap.apis import prune_model
from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.pruning import check_solver, select_channels, select_jointly
from mmdet_adasap.pruning.cost import Cost, CostTables
from mmdet_adasap.pruning.joint import choose_jointly
from mmdet_adasap.pruning.selection import minimum_counts


def network(seed: int) -> tuple[Cost, np.ndarray, list[np.ndarray]]:
    """A chain of layers with a residual tie or a concat: what it costs, its sizes and scores."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(32, 49, rng.integers(4, 7))
    cost = Cost(len(sizes))
    for g in range(len(sizes)):
        following = {(g + 1) % len(sizes): 1.0}
        if rng.random() < 0.4:  # of a concat
            following[int(rng.integers(len(sizes)))] = 1.0
        cost.add(int(rng.integers(1, 50)), (0, {g: 1.0}), (int(rng.integers(0, 9)), following))
    scores = [rng.lognormal(0, 0.5, size) * rng.lognormal(0, 0.5) for size in sizes]
    return cost, sizes, scores


def every_choice(values: list[np.ndarray], costs: CostTables) -> tuple[np.ndarray, np.ndarray]:
    """Value and cost of each choice."""
    shape = [len(value) for value in values]
    places = np.indices(shape)
    worth = sum(value[places[g]] for g, value in enumerate(values))
    cost = np.full(shape, costs.constant)
    for groups, table in costs.tables:
        cost += table[tuple(places[g] for g in groups)]
    return worth, cost


def options_of(sizes: np.ndarray, step: int) -> list[np.ndarray]:
    return [np.unique([*range(step, size, step), size]) for size in sizes]


def test_nearly_the_best_choice_and_never_above_the_limit():
    gaps = []
    for seed in range(80):
        cost, sizes, scores = network(seed)
        options = options_of(sizes, 8 if seed % 2 else 16)
        values = [np.cumsum(np.sort(s)[::-1])[o - 1] for s, o in zip(scores, options, strict=True)]
        tables = cost.tables(options)
        worth, costs = every_choice(values, tables)
        limit = (0.3, 0.5, 0.7)[seed % 3] * cost(sizes)
        choice = choose_jointly(values, tables, limit)
        fits = costs <= limit
        if choice is None:
            assert not fits.any()
            continue
        assert fits[tuple(choice)]
        gaps.append(1 - worth[tuple(choice)] / worth[fits].max())
    gaps = np.array(gaps)
    assert len(gaps) > 70
    assert (gaps < 1e-9).mean() >= 0.9
    assert gaps.mean() <= 0.002


@pytest.mark.parametrize('seed', range(5))
def test_tables_add_up_to_the_cost(seed):
    cost, sizes, _ = network(seed)
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
    cost, sizes, scores = network(seed)
    present = [np.ones(size, dtype=bool) for size in sizes]
    present[0][3] = False  # removed before
    scores[1][5] = np.inf  # has to stay
    scores[1][6] = -1.0
    limit = 0.5 * cost(sizes)
    least = minimum_counts(sizes, round_to, 0.9)
    kept = select_jointly(scores, present, cost, limit, round_to, least)
    ranked = select_channels(scores, present, cost, limit, round_to, least)
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
    cost, sizes, scores = network(0)
    present = [np.ones(size, dtype=bool) for size in sizes]
    whole = select_jointly(scores, present, cost, cost(sizes))
    assert all(k.all() for k in whole)
    with pytest.raises(UnreachableTargetError, match='keeps the least it may'):
        select_jointly(scores, present, cost, 1)


def test_equal_scores_are_no_trouble():
    cost, sizes, _ = network(1)
    present = [np.ones(size, dtype=bool) for size in sizes]
    for value in (0.0, 1.0):
        scores = [np.full(size, value) for size in sizes]
        kept = select_jointly(scores, present, cost, 0.4 * cost(sizes), 4)
        assert cost(np.array([k.sum() for k in kept])) <= 0.4 * cost(sizes)


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
