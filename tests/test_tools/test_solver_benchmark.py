# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""tools/benchmarks/solver.py: its bound, the published way, and the tool on a few cases."""

import numpy as np
import pytest

import solver_bound
from published_way import counts_as_published
from small_networks import every_choice, network, options_of, values_of


@pytest.mark.parametrize('seed', range(12))
def test_the_best_choice_at_a_price_is_exact(seed):
    costs, sizes, scores, _ = network(np.random.default_rng(seed))
    options = options_of(sizes, 8)
    values, tables = values_of(scores, options), costs[0].tables(options)
    worth, (found,) = every_choice(values, [tables])
    order, width = solver_bound.elimination_order([len(o) for o in options], tables)
    assert sorted(order) == list(range(len(sizes)))
    assert 1 <= width <= len(sizes)
    for price in (0.0, worth.max() / found.max(), 1e9):
        best = solver_bound.best_at_price(values, tables, price, order)
        assert best == pytest.approx((worth - price * (found - tables.constant)).max(), rel=1e-9)
    limit = 0.5 * found.max()
    bound = solver_bound.upper_bound(values, tables, limit).value
    best = worth[found <= limit].max()
    assert best <= bound * (1 + 1e-9)
    assert bound <= 1.1 * best  # a duality gap, of few and large steps


def test_groups_that_all_depend_on_each_other_are_too_wide(monkeypatch):
    costs, sizes, _, _ = network(np.random.default_rng(0))
    options = options_of(sizes, 8)
    monkeypatch.setattr(solver_bound, 'WIDEST', 30)
    with pytest.raises(solver_bound.TooWideError, match=r'^3 groups depend on each other with'):
        solver_bound.elimination_order([len(o) for o in options], costs[0].tables(options))


def test_the_published_way_keeps_its_limit_and_sees_no_savings_of_readers():
    for seed in range(6):
        net = network(np.random.default_rng(seed))
        dense = net.costs[0](net.sizes)
        once = counts_as_published(net, 0.5 * dense, 16, 1)
        often = counts_as_published(net, 0.5 * dense, 16, 30)
        for counts in (once, often):
            assert counts is None or net.costs[0](counts) <= 0.5 * dense
        # Readers of narrower layers cost less than they were charged for.
        assert once is None or net.costs[0](once) < 0.48 * dense


def test_the_tool_prints_a_line_for_each_way(run_tool):
    code, out, _ = run_tool('benchmarks/solver.py', '--cases', 2, '--configs')
    assert code is None
    assert out.count('small networks, resources: ') == 3
    for name in ('joint', 'ranked', 'published, one shot', 'published, 30 steps'):
        assert name in out
