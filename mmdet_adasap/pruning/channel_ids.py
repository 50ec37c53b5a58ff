# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A union-find over the indices of all parameter axes: tied indices make one channel.

A node is one index of one axis of one parameter or buffer. A convolution's weight of shape
``[8, 3, 3, 3]`` has 8 + 3 + 3 + 3 nodes. Each operation of the model ties nodes, for example the
outputs of one layer to the inputs of the next. What is tied can only be removed together.
"""

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

FROZEN = 0
"""The node that stands for "must not be removed". Being 0, it is the smallest of every set that it
is in, and so the root that :meth:`ChannelUnionFind.solve` gives to all of them."""


class TensorDim(NamedTuple):
    """One axis of one parameter or buffer, by the name that ``state_dict`` gives it."""

    name: str
    axis: int


@dataclass
class ChannelLabel:
    """Nodes that the entries of a tensor belong to, axis by axis.

    Args:
        axes (dict[int, np.ndarray]): Axis to the node of each of its indices, int64 of shape
            ``[tensor.shape[axis]]``, for the axes along which entries can be removed. An axis
            that is not in it cannot shrink.
        zero (bool): Whether an entry is 0 wherever the parameters of its node are 0.
        producer (str): Name of the weight, if this is what its layer returns and nothing else.
    """

    axes: dict[int, np.ndarray] = field(default_factory=dict)
    zero: bool = True
    producer: str = ''


class ChannelUnionFind:
    """Numbers the nodes and collects which of them can only be removed together.

    Attributes:
        dims (list[TensorDim]): The axes that have nodes, in the order of these.
        following_norms (dict[str, list[str]]): Name of a weight to the scale and shift of the
            normalisation that its layer's output goes into.
    """

    def __init__(self) -> None:
        self.dims: list[TensorDim] = []
        self._starts: list[int] = []
        self._ranges: dict[TensorDim, tuple[int, int]] = {}
        self._count = 1  # FROZEN
        self._left: list[np.ndarray] = []
        self._right: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []
        self._reasons: dict[str, list[np.ndarray]] = defaultdict(list)
        self.following_norms: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return self._count

    def nodes(self, name: str, axis: int, size: int) -> np.ndarray:
        """Return the nodes of an axis, int64 of shape ``[size]``; the first call creates them."""
        dim = TensorDim(name, axis)
        if dim not in self._ranges:
            self._ranges[dim] = (self._count, size)
            self.dims.append(dim)
            self._starts.append(self._count)
            self._count += size
        start, size = self._ranges[dim]
        return np.arange(start, start + size)

    def locate(self, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where nodes are; none of them may be FROZEN.

        Args:
            nodes (np.ndarray): int64 of any shape.

        Returns:
            tuple[np.ndarray, np.ndarray]: Place in :attr:`dims`, and index on that axis, of each.
        """
        # The axes have ranges of nodes one behind the other, so a list of the axis of every node
        # answers all at once. It starts with node 1, hence the -1.
        starts = np.asarray(self._starts, dtype=np.int64)
        sizes = np.diff(starts, append=self._count)
        axis = np.repeat(np.arange(len(sizes)), sizes)[nodes - 1]
        return axis, nodes - starts[axis]

    def owner(self, nodes: np.ndarray) -> str:
        """Return the name of the parameter or buffer that nodes of one axis belong to."""
        node = int(nodes[np.flatnonzero(nodes)[0]])  # the first that is not FROZEN
        return self.dims[bisect_right(self._starts, node) - 1].name

    def tie(self, left: np.ndarray, right: np.ndarray) -> None:
        """Tie ``left[i]`` to ``right[i]``: they can only be removed together."""
        # A single node, FROZEN as a rule: np.full takes a seventh of the time of broadcast_arrays.
        if not right.ndim:
            right = np.full(left.shape, right)
        elif left.shape != right.shape:
            left, right = np.broadcast_arrays(left, right)
        self._left.append(left.ravel())
        self._right.append(right.ravel())

    def freeze(self, nodes: np.ndarray, reason: str) -> None:
        """Protect nodes from removal, and note the reason."""
        nodes = np.asarray(nodes).ravel()
        self.tie(nodes, np.int64(FROZEN))
        self._reasons[reason].append(nodes)

    def mark_output(self, nodes: np.ndarray) -> None:
        """Note that these nodes are output channels of a convolution or linear layer."""
        self._outputs.append(nodes)

    @property
    def outputs(self) -> np.ndarray:
        """Nodes given to :meth:`mark_output`, as a bool mask of shape ``[len(self)]``."""
        mask = np.zeros(self._count, dtype=bool)
        for nodes in self._outputs:
            mask[nodes] = True
        return mask

    def reasons(self) -> dict[str, list[TensorDim]]:
        """Return the axes that each reason given to :meth:`freeze` stopped directly."""
        found = {}
        for reason, parts in self._reasons.items():
            nodes = np.unique(np.concatenate(parts))
            axes, _ = self.locate(nodes[nodes != FROZEN])
            found[reason] = [self.dims[i] for i in np.unique(axes)]
        return found

    def solve(self) -> np.ndarray:
        """Return the smallest node that each node is tied to, directly or through others.

        Returns:
            np.ndarray: int64 of shape ``[len(self)]``; equal numbers make one channel.
        """
        # On whole arrays, since a Python loop over every single tie is slow.
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
            # Hang the larger root under the smaller one. Where several ties want the same root,
            # ufunc.at takes the least; the next round unites the others. Roots only fall, so
            # the loop ends.
            np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
            # Path compression: every node points to its root again, by doubling steps.
            while not np.array_equal(root, parents := root[root]):
                root = parents
