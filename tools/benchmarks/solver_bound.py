# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A bound on what any choice of channels within a limit is worth, by exact elimination.

At a price on the cost the best choice is a sum of small tables to be maximised. Groups are
eliminated one by one: the tables that a group is in become one over its neighbours, with the best
of its options in each place. That is exact. What the best choice is worth at a price, and what the
limit is worth at it, together bound every choice within the limit; the lowest bound is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdet_adasap.pruning.cost import CostTables

WIDEST = 20_000_000
"""Entries of a table up to which groups are eliminated: 160 MB."""
PRICES = 40
"""Prices that are tried: the golden section then leaves 1e-7 of the interval."""
GOLDEN = (5**0.5 - 1) / 2
DECADES = 12
"""Powers of ten of prices that are searched: from one at which nothing is bought."""


class TooWideError(Exception):
    """Raised where a table of the elimination would be too large."""


class Bound(NamedTuple):
    """A bound on the value of all choices within a limit.

    Args:
        value (float): No choice is worth more.
        width (int): Groups on the largest table.
    """

    value: float
    width: int


def upper_bound(values: Sequence[np.ndarray], costs: CostTables, limit: float) -> Bound:
    """Return a bound on the value of all choices within a limit.

    Args:
        values (Sequence[np.ndarray]): What each option of each group is worth.
        costs (CostTables): What a choice costs.
        limit (float): The most that it may cost.

    Raises:
        TooWideError: If a table would be larger than :data:`WIDEST`.
    """
    order, width = elimination_order([len(value) for value in values], costs)
    room = limit - costs.constant

    def bound(exponent: float) -> float:
        price = 10**exponent
        return best_at_price(values, costs, price, order) + price * room

    # Nothing is worth more than all values for one unit. The bound is convex in the price, so that
    # it falls and then rises.
    high = np.log10(sum(float(value[-1]) for value in values))
    low = high - np.log10(max(room, 1.0)) - DECADES / 2
    high = min(high, low + DECADES)
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    found = [bound(exponent) for exponent in inner]
    lowest = min(found)
    for _ in range(PRICES - 2):
        if found[0] <= found[1]:
            high, inner[1], found[1] = inner[1], inner[0], found[0]
            inner[0] = high - GOLDEN * (high - low)
            found[0] = bound(inner[0])
        else:
            low, inner[0], found[0] = inner[0], inner[1], found[1]
            inner[1] = low + GOLDEN * (high - low)
            found[1] = bound(inner[1])
        lowest = min(lowest, *found)
    return Bound(lowest, width)


def elimination_order(lengths: Sequence[int], costs: CostTables) -> tuple[list[int], int]:
    """Return the groups in the order of their elimination, the smallest table first.

    Args:
        lengths (Sequence[int]): Options of each group.
        costs (CostTables): What a choice costs.

    Returns:
        tuple[list[int], int]: The order, and the groups on the largest table.

    Raises:
        TooWideError: If a table would be larger than :data:`WIDEST`.
    """
    neighbours: dict[int, set[int]] = {group: set() for group in range(len(lengths))}
    for groups, _ in costs.tables:
        for group in groups:
            neighbours[group].update(set(groups) - {group})
    order, width = [], 0

    def size(group: int) -> float:
        return float(np.prod([float(lengths[g]) for g in (group, *neighbours[group])]))

    while neighbours:
        group = min(neighbours, key=size)
        if size(group) > WIDEST:
            raise TooWideError(
                f'{len(neighbours[group]) + 1} groups depend on each other with {size(group):.0e} '
                f'combinations of their options, above {WIDEST:.0e}'
            )
        width = max(width, len(neighbours[group]) + 1)
        around = neighbours.pop(group)
        for other in around:
            neighbours[other].update(around - {other})
            neighbours[other].discard(group)
        order.append(group)
    return order, width


def best_at_price(
    values: Sequence[np.ndarray], costs: CostTables, price: float, order: Sequence[int]
) -> float:
    """Return the largest value less the price of the cost, of all choices; without the constant.

    Args:
        values (Sequence[np.ndarray]): What each option of each group is worth.
        costs (CostTables): What a choice costs.
        price (float): Value of a unit of cost.
        order (Sequence[int]): Groups as they are eliminated.
    """
    tables = [((group,), value) for group, value in enumerate(values)]
    tables += [(groups, -price * table) for groups, table in costs.tables]
    best = 0.0
    for group in order:
        own = [table for table in tables if group in table[0]]
        tables = [table for table in tables if group not in table[0]]
        others = sorted({other for groups, _ in own for other in groups} - {group})
        axes = [*others, group]
        total = np.zeros([len(values[g]) for g in axes])
        for groups, table in own:
            # The axes of a table in the order of the sum, and of length 1 where it has none.
            table = np.transpose(table, np.argsort([axes.index(g) for g in groups]))
            total += table.reshape([len(values[g]) if g in groups else 1 for g in axes])
        left = total.max(axis=-1)
        if others:
            tables.append((tuple(others), left))
        else:
            best += float(left)
    return best
