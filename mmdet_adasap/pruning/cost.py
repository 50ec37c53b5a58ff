# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Count a model's parameters or FLOPs for any number of kept channels, without cutting it."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class CostTables(NamedTuple):
    """A cost for every choice of options: a constant, and tables over groups that it depends on.

    Args:
        constant (float): What no choice changes.
        tables (list[tuple[tuple[int, ...], np.ndarray]]): Groups, and an array with an axis of
            options for each; a choice costs the constant and the sum of its entries.
    """

    constant: float
    tables: list[tuple[tuple[int, ...], np.ndarray]]


class Cost:
    r"""A sum of products: :math:`\sum_t c_t \prod_a (f_{ta} + \sum_g m_{tag} n_g)`.

    A weight of shape ``[out, in, k, k]`` is one term. The length of each axis is a fixed part
    :math:`f`, and :math:`m` indices for every one of the :math:`n_g` kept channels of the groups
    on that axis.

    Args:
        num_groups (int): Number of channel groups.

    Attributes:
        constant (float): Sum of the terms that no group changes.

    Examples:
        >>> cost = Cost(num_groups=2)
        >>> cost.add(9, (0, {0: 1}), (3, {1: 1}))  # 9 n_0 (3 + n_1), a 3x3 convolution
        >>> cost(np.array([4, 5]))
        288
    """

    def __init__(self, num_groups: int) -> None:
        self.num_groups = num_groups
        self.constant = 0
        self._coefficients: list[float] = []
        self._factors: list[list[int]] = []
        self._axes: dict[tuple, int] = {}
        self._arrays: tuple | None = None

    def add(self, coefficient: float, *factors: tuple[int, dict[int, float]]) -> None:
        """Add a term.

        Args:
            coefficient (float): What the factors are multiplied by.
            *factors (tuple[int, dict[int, float]]): ``(fixed, {group: indices per kept channel})``
                for each axis.
        """
        variable = []
        for fixed, per_channel in factors:
            if per_channel:
                # Most axes occur in many terms; each gets one row of the matrix in _pack.
                key = (fixed, tuple(sorted(per_channel.items())))
                variable.append(self._axes.setdefault(key, len(self._axes)))
            else:
                coefficient *= fixed
        if not coefficient:
            return
        if variable:
            self._coefficients.append(coefficient)
            self._factors.append(variable)
        else:
            self.constant += coefficient
        self._arrays = None

    def __call__(self, kept: np.ndarray) -> int:
        """Return the cost when each group keeps ``kept`` channels (int, ``[num_groups]``)."""
        if self._arrays is None:
            self._arrays = self._pack()
        fixed, per_channel, coefficients, factors = self._arrays
        # select_channels calls this again and again, so it is three array operations. The
        # last axis is a constant 1 that pads terms with few factors.
        left = np.append(fixed + per_channel @ np.asarray(kept, dtype=np.float64), 1.0)
        return self.constant + round(float(coefficients @ left[factors].prod(axis=1)))

    def tables(self, options: Sequence[np.ndarray]) -> CostTables:
        """Return the cost as tables over the groups' numbers of kept channels.

        Args:
            options (Sequence[np.ndarray]): Channels that each group may keep, int.

        Returns:
            CostTables: A table for each set of groups that occur in one product; their sum is
            the cost before it is rounded.
        """
        axes = [
            [((), float(fixed)), *(((group,), float(count)) for group, count in groups)]
            for fixed, groups in self._axes
        ]
        products: defaultdict[tuple[int, ...], float] = defaultdict(float)
        for coefficient, factors in zip(self._coefficients, self._factors, strict=True):
            for parts in itertools.product(*(axes[axis] for axis in factors)):
                groups = tuple(sorted(itertools.chain(*(groups for groups, _ in parts))))
                products[groups] += coefficient * math.prod(number for _, number in parts)
        constant, tables = float(self.constant) + products.pop((), 0.0), {}
        for groups, coefficient in products.items():
            if not coefficient:
                continue
            own = tuple(sorted(set(groups)))
            table = np.array(coefficient)
            for group in own:
                kept = np.asarray(options[group], dtype=np.float64)
                table = np.multiply.outer(table, kept ** groups.count(group))
            tables[own] = tables.get(own, 0) + table
        return CostTables(constant, list(tables.items()))

    def hold(self, sizes: Mapping[int, int]) -> 'Cost':
        """Return the same cost where some groups always keep a certain number of channels.

        Args:
            sizes (Mapping[int, int]): Group to the channels that it keeps.

        Returns:
            Cost: Of the other groups, numbered anew in their order.
        """
        others = [g for g in range(self.num_groups) if g not in sizes]
        number = {g: new for new, g in enumerate(others)}
        axes = []
        for fixed, per_channel in self._axes:
            held = sum(count * sizes[g] for g, count in per_channel if g in sizes)
            left = {number[g]: count for g, count in per_channel if g not in sizes}
            axes.append((fixed + round(held), left))
        cost = Cost(len(others))
        cost.constant = self.constant
        for coefficient, factors in zip(self._coefficients, self._factors, strict=True):
            cost.add(coefficient, *(axes[axis] for axis in factors))
        return cost

    def _pack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return fixed parts, indices per channel, coefficients and axes as arrays."""
        fixed = np.array([key[0] for key in self._axes], dtype=np.float64)
        per_channel = np.zeros((len(self._axes), self.num_groups))
        for (_, groups), axis in self._axes.items():
            for group, count in groups:
                per_channel[axis, group] = count
        most = max(map(len, self._factors), default=1)
        factors = np.full((len(self._factors), most), len(self._axes))  # all point to the 1
        for row, variable in zip(factors, self._factors, strict=True):
            row[: len(variable)] = variable
        return fixed, per_channel, np.array(self._coefficients), factors
