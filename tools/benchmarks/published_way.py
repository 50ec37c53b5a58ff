# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The choice of HALP (arXiv:2210.06659) on small networks, written from its description.

A layer is charged to the channels that it makes, with those that it reads at their present number.
Costs then add up over groups, and the choice is a knapsack that is solved exactly. What the next
layer saves by reading less is not seen before the next step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from small_networks import Network


def counts_as_published(net: Network, limit: float, step: int, events: int) -> np.ndarray | None:
    """Return how many channels each group keeps, of the first resource.

    Args:
        net (Network): The network.
        limit (float): The most that may remain.
        step (int): Channels that a group keeps are a multiple of it.
        events (int): Steps in which the limit is approached, by the same factor each.

    Returns:
        np.ndarray | None: The counts; None if a step has no solution.
    """
    from mmdet_adasap.pruning.knapsack import best_additive

    ranked = [np.append(0.0, np.cumsum(np.sort(score)[::-1])) for score in net.scores]
    counts = np.array(net.sizes)
    dense = net.costs[0](counts)
    for event in range(1, events + 1):
        options = [np.unique([*range(step, count, step), count]) for count in counts.tolist()]
        charged = [
            layer.factor
            * option
            * (layer.fixed + sum(counts[g] * indices for g, indices in layer.read.items()))
            for layer, option in zip(net.layers, options, strict=True)
        ]
        room = dense * (limit / dense) ** (event / events) if event < events else limit
        chosen = best_additive(
            [worth[option] for worth, option in zip(ranked, options, strict=True)],
            [cost[None].astype(float) for cost in charged],
            np.array([float(room)]),
            [np.zeros(1)],
            -np.inf,
        )
        if chosen is None:
            return None
        counts = np.array([option[i] for option, i in zip(options, chosen, strict=True)])
    return counts
