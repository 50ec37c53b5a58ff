# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Small networks drawn by chance, of which every choice of channels can be looked at.

Layers in a ring, some of which read two others (a concat), with importance drawn likewise. They
are what tools/benchmarks/solver.py and the tests of the solvers have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdet_adasap.pruning.cost import Cost, CostTables

SIZES = 32, 49
"""Channels of a group: from, and below."""
PLATEAU = 0.5
"""Share of the steps of a measured table that cost nothing, as on a device with stairs."""


class Layer(NamedTuple):
    """A layer of a small network; it makes the channels of the group of its number.

    Args:
        factor (int): What it costs for a channel read and one made, of the first resource.
        fixed (int): Channels that it reads in any case.
        read (dict[int, float]): Group to indices that it reads of each of its channels.
    """

    factor: int
    fixed: int
    read: dict[int, float]


class Network(NamedTuple):
    """A small network.

    Args:
        costs (list[Cost]): What it costs, of each resource.
        sizes (np.ndarray): Channels of each group.
        scores (list[np.ndarray]): Importance of the channels of each group.
        layers (list[Layer]): Its layers, as many as groups.
    """

    costs: list[Cost]
    sizes: np.ndarray
    scores: list[np.ndarray]
    layers: list[Layer]


def network(rng: np.random.Generator, resources: int = 1) -> Network:
    """Draw a network of four to six layers.

    Args:
        rng (np.random.Generator): Where it is drawn from.
        resources (int): Costs, over the same layers with coefficients of their own. Defaults to 1.
    """
    from mmdet_adasap.pruning.cost import Cost

    sizes = rng.integers(*SIZES, rng.integers(4, 7))
    costs, layers = [Cost(len(sizes)) for _ in range(resources)], []
    for g in range(len(sizes)):
        read = {(g + 1) % len(sizes): 1.0}
        if rng.random() < 0.4:  # of a concat
            read[int(rng.integers(len(sizes)))] = 1.0
        layers.append(Layer(int(rng.integers(1, 50)), int(rng.integers(0, 9)), read))
        for number, cost in enumerate(costs):
            factor = int(rng.integers(1, 50)) if number else layers[g].factor
            cost.add(factor, (0, {g: 1.0}), (layers[g].fixed, read))
    return Network(costs, sizes, scores_of(rng, sizes), layers)


def scores_of(rng: np.random.Generator, sizes: np.ndarray) -> list[np.ndarray]:
    """Draw importance: channels differ, and so do layers."""
    return [rng.lognormal(0, 0.5, size) * rng.lognormal(0, 0.5) for size in sizes]


def options_of(sizes: np.ndarray, step: int) -> list[np.ndarray]:
    """Return the channels that each group may keep: multiples of a step, or all."""
    return [np.unique([*range(step, size, step), size]) for size in sizes]


def values_of(scores: Sequence[np.ndarray], options: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the importance that each option keeps."""
    return [np.cumsum(np.sort(s)[::-1])[o - 1] for s, o in zip(scores, options, strict=True)]


def measured_tables(
    rng: np.random.Generator, options: Sequence[np.ndarray], additive: bool = False
) -> CostTables:
    """Draw tables as from a device: they rise by stairs of any height, and are not bilinear.

    Args:
        rng (np.random.Generator): Where they are drawn from.
        options (Sequence[np.ndarray]): Channels that each group may keep.
        additive (bool): Whether each group has a table of its own; else each pair of neighbours
            has one. Defaults to False.

    Returns:
        CostTables: Tables of whole numbers that never fall with an option.
    """
    from mmdet_adasap.pruning.cost import CostTables

    tables = []
    for g in range(len(options)):
        groups = (g,) if additive else tuple(sorted({g, (g + 1) % len(options)}))
        table = rng.integers(1, 50) * np.ones([len(options[h]) for h in groups])
        for axis, length in enumerate(table.shape):
            rise = rng.integers(1, 100, length) * (rng.random(length) > PLATEAU)
            shape = [length if a == axis else 1 for a in range(table.ndim)]
            table = table * (1 + np.cumsum(rise).reshape(shape) / 20)
        noise = rng.uniform(0.8, 1.25, table.shape)
        for axis in range(table.ndim):
            noise = np.maximum.accumulate(noise, axis=axis)
        tables.append((groups, np.round(table * noise)))
    return CostTables(float(rng.integers(0, 50)), tables)


def every_choice(
    values: Sequence[np.ndarray], costs: Sequence[CostTables]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the value of every choice, and its costs, ``[resources, *options of each group]``."""
    shape = [len(value) for value in values]
    places = np.indices(shape)
    worth = sum(value[places[g]] for g, value in enumerate(values))
    found = []
    for cost in costs:
        total = np.full(shape, float(cost.constant))
        for groups, table in cost.tables:
            total += table[tuple(places[g] for g in groups)]
        found.append(total)
    return worth, np.stack(found)
