# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Channel groups: which indices of which tensors make one channel."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from .channel_ids import FROZEN, ChannelUnionFind, TensorDim
from .cost import Cost

NOT_TRAINED = 'weight that is not trained'
"""Why frozen stages are left whole, a key of :attr:`PrunableChannels.frozen`."""

Size = tuple[int, dict[int, float]]
"""Indices that stay whatever is removed, and how many each kept channel of a group adds."""


@dataclass
class Member:
    """The part that one axis of one tensor has in a group.

    Args:
        name (str): Name of the parameter or buffer.
        axis (int): Its axis.
        index (np.ndarray): int64 of shape ``[channels, k]``: the ``k`` indices that each
            channel holds on that axis (``k`` is 49 for a 7x7 map flattened into a linear
            layer, and 1 as a rule).
        is_output (bool): Whether these are output channels of a convolution or linear layer.
        following_norm (list[str]): Names of the scale and shift of the normalisation that these
            output channels go into, if it follows their layer at once.
    """

    name: str
    axis: int
    index: np.ndarray
    is_output: bool
    following_norm: list[str] = field(default_factory=list)


@dataclass
class ChannelGroup:
    """Channels of the same kind: each holds as much of the same axes as the others.

    Args:
        index (int): Its place among the groups of the model.
        members (list[Member]): All axes concerned, in the order they were met.
        size (int): Number of channels, none removed.
    """

    index: int
    members: list[Member]
    size: int

    @property
    def name(self) -> str:
        """The layer that first makes these channels."""
        return next(m.name for m in self.members if m.is_output).rpartition('.')[0]


@dataclass
class PrunableChannels:
    """What can be removed from a model.

    Args:
        groups (list[ChannelGroup]): Channels that can be removed.
        params (Cost): Parameters that remain, for a number of kept channels per group.
        flops (Cost): Multiply-accumulates of the traced input, likewise.
        frozen (dict[str, list[TensorDim]]): Reason to axes which it stopped directly.
        unused_parameters (list[str]): Parameters that took no part in the run, left whole.
        attributes (dict[tuple[str, str], Size]): Module and attribute to the number of channels
            that it holds for code which runs in the module.
        excluded (dict[str, str]): Modules left whole because a trial cut of them went wrong.
    """

    groups: list[ChannelGroup]
    params: Cost
    flops: Cost
    frozen: dict[str, list[TensorDim]]
    unused_parameters: list[str]
    attributes: dict[tuple[str, str], Size] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)

    @property
    def group_sizes(self) -> np.ndarray:
        """Channels of each group, int of shape ``[groups]``."""
        return np.array([group.size for group in self.groups], dtype=np.int64)

    @property
    def channels_per_unit(self) -> np.ndarray:
        """How many outputs of a layer go with one channel, int of shape ``[groups]``.

        More than 1 where a normalisation or convolution in groups ties them.
        """
        widths = [min(m.index.shape[1] for m in g.members if m.is_output) for g in self.groups]
        return np.array(widths, dtype=np.int64)

    def group_steps(self, round_to: int) -> np.ndarray:
        """The steps in which groups shrink so that layers keep a multiple of ``round_to``."""
        return round_to // np.gcd(round_to, self.channels_per_unit)

    def cost(self, resource: str) -> Cost:
        """The cost of ``'params'`` or ``'flops'``."""
        return {'params': self.params, 'flops': self.flops}[resource]

    def traced_attributes(self, kept: list[np.ndarray]) -> dict[str, dict[str, int]]:
        """The attributes that change when a choice of channels is kept, and their new values."""
        counts: dict[str, dict[str, int]] = {}
        for (module, attribute), (fixed, per_channel) in self.attributes.items():
            lost = sum(n * int((~kept[g]).sum()) for g, n in per_channel.items())
            if lost:
                left = sum(n * int(kept[g].sum()) for g, n in per_channel.items())
                counts.setdefault(module, {})[attribute] = fixed + round(left)
        return counts


def removed_indices(
    groups: list[ChannelGroup], kept: list[np.ndarray]
) -> dict[str, dict[int, np.ndarray]]:
    """What the tensors lose when a choice of channels is kept.

    Args:
        groups (list[ChannelGroup]): The groups of a model.
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group.

    Returns:
        dict[str, dict[int, np.ndarray]]: Tensor name to axis to sorted indices, for the axes
        that lose any.
    """
    parts: dict[str, dict[int, list[np.ndarray]]] = {}
    for group, k in zip(groups, kept, strict=True):
        if k.all():
            continue
        for member in group.members:
            axes = parts.setdefault(member.name, {})
            axes.setdefault(member.axis, []).append(member.index[~k].ravel())
    return {
        name: {axis: np.sort(np.concatenate(found)) for axis, found in sorted(axes.items())}
        for name, axes in parts.items()
    }


def build_channels(
    model: nn.Module,
    table: ChannelUnionFind,
    flops: list[tuple],
    unused_parameters: list[str],
    attributes: dict[tuple[str, str], list[np.ndarray]],
) -> PrunableChannels:
    """Make groups of the channels that the ties of a trace leave free.

    Channels made by a convolution or linear layer whose weight is not trained are frozen:
    nothing could make up for them.
    """
    parameters = dict(model.named_parameters())
    tensors = {**dict(model.named_buffers()), **parameters}
    for ref in table.axes:
        tensor = tensors[ref.name]
        if not tensor.requires_grad and tensor.dim() > 1:
            nodes = table.nodes(ref.name, ref.axis, tensor.shape[ref.axis])
            if table.outputs[nodes].all():
                table.freeze(nodes, NOT_TRAINED)

    root = table.solve()
    is_output = table.outputs
    makes_output = np.zeros(len(table), dtype=bool)
    makes_output[root[is_output]] = True
    free = np.flatnonzero((root != FROZEN) & makes_output[root])
    groups, group_of_node = _group(table, root, free, is_output)

    def vector(nodes: np.ndarray) -> Size:
        owner = group_of_node[nodes]
        counts = np.bincount(owner[owner >= 0], minlength=len(groups))
        per_channel = {int(g): counts[g] / groups[g].size for g in np.flatnonzero(counts)}
        return int((owner < 0).sum()), per_channel

    by_tensor = defaultdict(dict)
    for ref, size in zip(table.axes, _axis_sizes(table, group_of_node, groups), strict=True):
        by_tensor[ref.name][ref.axis] = size
    params = Cost(len(groups))
    for name, tensor in parameters.items():
        sizes = by_tensor.get(name, {})
        params.add(1, *(sizes.get(axis, (size, {})) for axis, size in enumerate(tensor.shape)))
    macs = Cost(len(groups))
    for coefficient, *factors in flops:
        macs.add(
            coefficient,
            *((size, {}) if nodes is None else vector(nodes) for nodes, size in factors),
        )
    return PrunableChannels(
        groups=groups,
        params=params,
        flops=macs,
        frozen=table.reasons(),
        unused_parameters=unused_parameters,
        attributes={key: _that_varies(map(vector, met)) for key, met in attributes.items()},
    )


def _that_varies(sizes: Iterable[Size]) -> Size:
    """Of the axes that had a count as their size, the first that can shrink, if any can."""
    sizes = list(sizes)
    return next((size for size in sizes if size[1]), sizes[0])


def _axis_sizes(
    table: ChannelUnionFind, group_of_node: np.ndarray, groups: list[ChannelGroup]
) -> list[Size]:
    """What stays of every axis of a table, and what channels add to it."""
    axis, _ = table.locate(np.arange(1, len(table)))
    columns = len(groups) + 1  # the first for what is in no group
    cells = np.bincount(
        axis * columns + group_of_node[1:] + 1, minlength=len(table.axes) * columns
    )
    counts = cells.reshape(len(table.axes), columns)
    sizes: list[Size] = [(int(fixed), {}) for fixed in counts[:, 0]]
    for a, g in zip(*np.nonzero(counts[:, 1:]), strict=True):
        sizes[a][1][int(g)] = counts[a, g + 1] / groups[g].size
    return sizes


def _group(
    table: ChannelUnionFind, root: np.ndarray, free: np.ndarray, is_output: np.ndarray
) -> tuple[list[ChannelGroup], np.ndarray]:
    """Put channels (sets of nodes with one root) that hold the same axes into one group."""
    group_of_node = np.full(len(table), -1)
    if not len(free):
        return [], group_of_node
    # Nodes are numbered axis by axis, and a stable sort leaves those of a channel in that order.
    free = free[np.argsort(root[free], kind='stable')]
    axis, index = table.locate(free)
    starts = np.flatnonzero(np.r_[True, np.diff(root[free]) != 0])
    # A channel's signature is the multiset of its axes, as a sum of one random number each.
    marks = np.random.Generator(np.random.PCG64(0)).integers(
        0, 2**63, size=len(table.axes), dtype=np.uint64
    )
    signature = np.add.reduceat(marks[axis], starts)
    _, first, kind = np.unique(signature, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    kind = rank[kind]  # groups in the order in which the model met them

    sizes = np.diff(np.r_[starts, len(free)])
    kind_of_entry = np.repeat(kind, sizes)
    group_of_node[free] = kind_of_entry
    # The sort is stable: within a group and an axis, channels stay in their order.
    place = kind_of_entry * len(table.axes) + axis
    order = np.argsort(place, kind='stable')
    kind_of_entry, axis, index = kind_of_entry[order], axis[order], index[order]
    starts = np.flatnonzero(np.r_[True, np.diff(place[order]) != 0])
    outputs = np.logical_and.reduceat(is_output[free[order]], starts)
    groups = [ChannelGroup(g, [], size) for g, size in enumerate(np.bincount(kind).tolist())]
    for start, indices, output in zip(starts, np.split(index, starts[1:]), outputs, strict=True):
        group, ref = groups[kind_of_entry[start]], table.axes[axis[start]]
        group.members.append(
            Member(
                name=ref.name,
                axis=ref.axis,
                index=indices.reshape(group.size, -1),
                is_output=bool(output),
                following_norm=table.following_norms.get(ref.name, []) if output else [],
            )
        )
    return groups, group_of_node
