# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Nodes, the indices of parameter axes, and the ties that make channels of them."""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FROZEN = 0
"""The node that everything which must not be removed is tied to."""


class TensorDim(NamedTuple):
    """One axis of one parameter or buffer, by the name that ``state_dict`` gives it."""

    name: str
    axis: int


@dataclass
class ChannelLabel:
    """What the channels of an activation belong to.

    Args:
        axes (dict[int, np.ndarray]): Node of every index of an axis, int64 of shape
            ``[tensor.shape[axis]]``, for each axis along which entries can be removed. An axis
            that is not named cannot shrink.
        zero (bool): Whether an entry is 0 wherever the parameters of its node are 0.
        producer (str): Name of the weight, if this is what its layer returns and nothing else.
    """

    axes: dict[int, np.ndarray] = field(default_factory=dict)
    zero: bool = True
    producer: str = ''


class ChannelUnionFind:
    """Gives nodes to parameter axes and collects which of them can only go together.

    A node is one index of one axis of one parameter or buffer. Node 0 is :data:`FROZEN`.

    Attributes:
        following_norms (dict[str, list[str]]): Name of a weight to the scale and shift of the
            normalisation that its layer's output goes into.
    """

    def __init__(self) -> None:
        self.axes: list[TensorDim] = []
        self._starts: list[int] = []
        self._ranges: dict[TensorDim, tuple[int, int]] = {}
        self._count = 1
        self._left: list[np.ndarray] = []
        self._right: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []
        self._reasons: dict[str, list[np.ndarray]] = defaultdict(list)
        self.following_norms: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return self._count

    def nodes(self, name: str, axis: int, size: int) -> np.ndarray:
        """The nodes of an axis, made on first demand. Returns int64 of shape ``[size]``."""
        ref = TensorDim(name, axis)
        if ref not in self._ranges:
            self._ranges[ref] = (self._count, size)
            self.axes.append(ref)
            self._starts.append(self._count)
            self._count += size
        start, size = self._ranges[ref]
        return np.arange(start, start + size)

    def locate(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Axis number (into :attr:`axes`) and index on that axis of every node but FROZEN."""
        starts = np.asarray(self._starts, dtype=np.int64)
        sizes = np.diff(starts, append=self._count)
        axis = np.repeat(np.arange(len(sizes)), sizes)[nodes - 1]
        return axis, nodes - starts[axis]

    def owner(self, nodes: np.ndarray) -> str:
        """Name of the parameter or buffer that nodes of one axis belong to."""
        node = int(nodes[np.flatnonzero(nodes)[0]])
        return self.axes[bisect_right(self._starts, node) - 1].name

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Say that ``left[i]`` and ``right[i]`` can only be removed together."""
        if not right.ndim:
            right = np.full(left.shape, right)
        elif left.shape != right.shape:
            left, right = np.broadcast_arrays(left, right)
        self._left.append(left.ravel())
        self._right.append(right.ravel())

    def freeze(self, nodes: np.ndarray, reason: str) -> None:
        """Say that these nodes cannot be removed, and why."""
        nodes = np.asarray(nodes).ravel()
        self.tie(nodes, np.int64(FROZEN))
        self._reasons[reason].append(nodes)

    def mark_output(self, nodes: np.ndarray) -> None:
        """Say that these nodes are output channels of a convolution or linear layer."""
        self._outputs.append(nodes)

    @property
    def outputs(self) -> np.ndarray:
        """bool of shape ``[len(self)]``: the nodes given to :meth:`mark_output`."""
        mask = np.zeros(self._count, dtype=bool)
        for nodes in self._outputs:
            mask[nodes] = True
        return mask

    def reasons(self) -> dict[str, list[TensorDim]]:
        """For each reason given to :meth:`freeze`, the axes that it stopped directly."""
        found = {}
        for reason, parts in self._reasons.items():
            nodes = np.unique(np.concatenate(parts))
            axes, _ = self.locate(nodes[nodes != FROZEN])
            found[reason] = [self.axes[i] for i in np.unique(axes)]
        return found

    def solve(self) -> np.ndarray:
        """The smallest node that each node is tied to, int64 of shape ``[len(self)]``."""
        root = np.arange(self._count)
        if not self._left:
            return root
        left, right = np.concatenate(self._left), np.concatenate(self._right)
        while True:
            a, b = root[left], root[right]
            differ = a != b
            if not differ.any():
                return root
            a, b = a[differ], b[differ]
            np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(root, parents := root[root]):
                root = parents
