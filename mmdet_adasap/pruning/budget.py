# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A budget: limits on what a choice of channels costs, all of which have to hold."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from .cost import CostTables


class CostOfCounts(Protocol):
    """What a solver asks of a cost: a number for every choice, and the same as tables.

    :class:`~mmdet_adasap.pruning.cost.Cost` is one. Costs are whole numbers in their unit; they
    may stay the same, or even fall, where a group keeps more channels.
    """

    def __call__(self, kept: np.ndarray) -> float:
        """Return the cost when each group keeps ``kept`` channels (int, ``[groups]``)."""

    def tables(self, options: Sequence[np.ndarray]) -> CostTables:
        """Return the cost as tables over the numbers of channels that each group may keep."""


class Limit(NamedTuple):
    """The most that a choice of channels may cost.

    Args:
        cost (CostOfCounts): What is limited.
        most (float): The most that may remain, in its unit.
        name (str): Its name in messages, as 'params'. Defaults to '': it has none.
    """

    cost: CostOfCounts
    most: float
    name: str = ''


class Excess(NamedTuple):
    """A limit that a choice does not keep.

    Args:
        name (str): Name of the resource, '' if it has none.
        cost (float): What the choice costs.
        most (float): What it may cost.
    """

    name: str
    cost: float
    most: float


class Budget:
    """Limits that all have to hold.

    Args:
        limits (Iterable[Limit | tuple]): One or more of ``(cost, most)`` or
            ``(cost, most, name)``.

    Raises:
        ValueError: If there are none.

    Attributes:
        limits (list[Limit]): The limits.

    Examples:
        >>> cost = Cost(num_groups=1)
        >>> cost.add(9, (0, {0: 1}))
        >>> Budget([(cost, 30, 'params')]).excess(np.array([4]))
        [Excess(name='params', cost=36, most=30)]
    """

    def __init__(self, limits: Iterable[Limit | tuple]) -> None:
        self.limits = [Limit(*limit) for limit in limits]
        if not self.limits:
            raise ValueError('limits=[] is no budget; give one (cost, most) or more')

    def holds(self, counts: np.ndarray) -> bool:
        """Return whether a choice keeps every limit.

        Args:
            counts (np.ndarray): Channels that each group keeps, int of shape ``[groups]``.
        """
        return all(limit.cost(counts) <= limit.most for limit in self.limits)

    def excess(self, counts: np.ndarray) -> list[Excess]:
        """Return the limits that a choice does not keep, and what it costs.

        Args:
            counts (np.ndarray): Channels that each group keeps, int of shape ``[groups]``.
        """
        found = [Excess(name, cost(counts), most) for cost, most, name in self.limits]
        return [excess for excess in found if excess.cost > excess.most]

    def tables(self, options: Sequence[np.ndarray]) -> list[CostTables]:
        """Return the tables of each limit's cost.

        Args:
            options (Sequence[np.ndarray]): Channels that each group may keep, int.
        """
        return [limit.cost.tables(options) for limit in self.limits]
