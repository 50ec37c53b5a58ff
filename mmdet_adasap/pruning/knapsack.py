# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The best choice where costs add up over groups, proven: dynamic programming with bounds."""

from collections.abc import Sequence

import numpy as np

STATES = 50_000
"""Partial choices up to which the search goes on: 8 MB for 20 groups, and a second at most."""
SURE = 1e-12
"""Share of the total value that rounding may hide; what is better by less is not looked for."""


def best_additive(
    values: Sequence[np.ndarray],
    costs: Sequence[np.ndarray],
    room: np.ndarray,
    prices: Sequence[np.ndarray],
    known: float,
) -> np.ndarray | None:
    """Choose an option of each group where every group has its own costs.

    Partial choices grow group by group. One goes where even the best of what may follow, at a
    price on what is left, is worth no more than a choice that is known.

    Args:
        values (Sequence[np.ndarray]): What each option is worth.
        costs (Sequence[np.ndarray]): What it costs, ``[resources, options]`` for each group.
        room (np.ndarray): The most that all may cost, ``[resources]``.
        prices (Sequence[np.ndarray]): Candidates for a price of each resource, ``[resources]``;
            the one with the tightest bound is taken.
        known (float): Value of the best choice that is known.

    Returns:
        np.ndarray | None: Index of each group's option; None if nothing better was found, which
        proves that there is nothing where the search ended within :data:`STATES`.
    """
    price = min(prices, key=lambda price: _bound(values, costs, room, price))
    # Of the groups that follow: what they are worth at the price, and what they cost at least.
    ahead = [np.max(v - price @ c) for v, c in zip(values, costs, strict=True)]
    ahead = np.append(np.cumsum(ahead[::-1])[::-1], 0.0)
    least = [c.min(axis=1) for c in costs]
    least = np.append(np.cumsum(least[::-1], axis=0)[::-1], [np.zeros(len(room))], axis=0)
    worth, used = np.zeros(1), np.zeros((len(room), 1))
    parents, taken = [], []
    for group, (value, cost) in enumerate(zip(values, costs, strict=True)):
        worth = (worth[:, None] + value).ravel()
        used = (used[:, :, None] + cost[:, None, :]).reshape(len(room), -1)
        left = room[:, None] - used
        bound = worth + price @ left + ahead[group + 1]
        alive = np.flatnonzero(
            (left >= least[group + 1][:, None]).all(axis=0) & (bound > known + SURE)
        )
        if len(room) == 1:
            alive = _not_beaten(alive, worth, used[0])
        if not len(alive) or len(alive) > STATES:
            return None
        parents.append(alive // len(value))
        taken.append(alive % len(value))
        worth, used = worth[alive], used[:, alive]
    choice = np.zeros(len(values), dtype=np.int64)
    at = int(np.argmax(worth))
    for group in reversed(range(len(values))):
        choice[group] = taken[group][at]
        at = parents[group][at]
    return choice


def _bound(
    values: Sequence[np.ndarray], costs: Sequence[np.ndarray], room: np.ndarray, price: np.ndarray
) -> float:
    """Return what no choice within the limits is worth more than."""
    best = sum(np.max(v - price @ c) for v, c in zip(values, costs, strict=True))
    return float(best + price @ room)


def _not_beaten(alive: np.ndarray, worth: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the partial choices beside which no other costs as little and is worth as much."""
    order = alive[np.lexsort((-worth[alive], used[alive]))]
    best = np.maximum.accumulate(worth[order])
    return order[np.append(True, best[1:] > best[:-1])[: len(order)]]
