# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Channel groups: which indices of which tensors make one channel."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from .channel_ids import FROZEN, ChannelUnionFind, TensorDim
from .cost import Cost
from .layer_calls import LayerCall, Size, hold_size

NOT_TRAINED = 'weight that is not trained'
"""Reason for which frozen stages keep their channels, a key of :attr:`PrunableChannels.frozen`."""

OUTPUT = 'output of the model'
"""Reason for which heads keep their outputs, another one."""


@dataclass
class Member:
    """One axis of one tensor as a part of a group.

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
        members (list[Member]): All axes concerned, in the order in which the trace reached them.
        size (int): Number of channels, none removed.
    """

    index: int
    members: list[Member]
    size: int

    @property
    def name(self) -> str:
        """The layer that first makes these channels."""
        return next(m.name for m in self.members if m.is_output).rpartition('.')[0]

    def untrained_layers(self, parameters: Mapping[str, nn.Parameter]) -> list[str]:
        """Return the layers that make these channels and whose weight is not trained now.

        Args:
            parameters (Mapping[str, nn.Parameter]): The parameters of the model by name.
        """
        makers = [m.name for m in self.members if m.is_output and m.name in parameters]
        return [n.rpartition('.')[0] for n in makers if not parameters[n].requires_grad]


@dataclass
class PrunableChannels:
    """The channels of a model that can be removed, and what they cost.

    Args:
        groups (list[ChannelGroup]): Channels that can be removed.
        params (Cost): Parameters that remain, given how many channels each group keeps.
        flops (Cost): Multiply-accumulates of the traced input, likewise.
        calls (list[LayerCall]): Convolutions and linear layers, in the order of the run.
        frozen (dict[str, list[TensorDim]]): Reason to axes which it stopped directly.
        unused_parameters (list[str]): Parameters that took no part in the run; none is cut.
        attributes (dict[tuple[str, str], Size]): Module and attribute to the number of channels
            that it holds for code which runs in the module.
        excluded (dict[str, str]): Layer that keeps its output channels, since a trial cut of
            them went wrong, to the reason.
    """

    groups: list[ChannelGroup]
    params: Cost
    flops: Cost
    calls: list[LayerCall]
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
        units = [min(m.index.shape[1] for m in g.members if m.is_output) for g in self.groups]
        return np.array(units, dtype=np.int64)

    def group_steps(self, round_to: int) -> np.ndarray:
        """Return the steps in which groups shrink so that layers keep a multiple of ``round_to``.

        Args:
            round_to (int): What the channels of every layer shall be a multiple of.

        Returns:
            np.ndarray: Channels of a group that go at once, int of shape ``[groups]``.
        """
        # A group whose channel stands for 8 outputs keeps them a multiple of 8 by itself.
        return round_to // np.gcd(round_to, self.channels_per_unit)

    def cost(self, resource: str) -> Cost:
        """Return the cost of a resource, ``'params'`` or ``'flops'``."""
        return {'params': self.params, 'flops': self.flops}[resource]

    def leave_whole(self, reasons: Mapping[int, str]) -> 'PrunableChannels':
        """Return the channels without some groups, which stay as they are.

        Args:
            reasons (Mapping[int, str]): Index of a group to why it stays, for :attr:`excluded`
                and :attr:`frozen`.

        Returns:
            PrunableChannels: The others, numbered anew.
        """
        sizes = {g: self.groups[g].size for g in reasons}
        others = [group for group in self.groups if group.index not in sizes]
        number = {group.index: new for new, group in enumerate(others)}

        frozen, excluded = dict(self.frozen), dict(self.excluded)
        for g, reason in reasons.items():
            excluded[self.groups[g].name] = reason
            axes = [TensorDim(member.name, member.axis) for member in self.groups[g].members]
            frozen[reason] = [*frozen.get(reason, []), *axes]
        return replace(
            self,
            groups=[replace(group, index=number[group.index]) for group in others],
            params=self.params.hold(sizes),
            flops=self.flops.hold(sizes),
            frozen=frozen,
            calls=[call.hold(sizes, number) for call in self.calls],
            attributes={k: hold_size(s, sizes, number) for k, s in self.attributes.items()},
            excluded=excluded,
        )

    def traced_attributes(self, kept: list[np.ndarray]) -> dict[str, dict[str, int]]:
        """Return the traced attributes that change, with their new values.

        Args:
            kept (list[np.ndarray]): bool of shape ``[size]`` for each group.

        Returns:
            dict[str, dict[str, int]]: Module name to attribute to value.
        """
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
    """Return the indices that tensors lose when some channels are kept.

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
    union_find: ChannelUnionFind,
    flops: list[tuple],
    layers: list[tuple],
    unused_parameters: list[str],
    attributes: dict[tuple[str, str], list[np.ndarray]],
) -> PrunableChannels:
    """Make groups of the channels that the ties of a trace leave free.

    Channels made by a convolution or linear layer whose weight is not trained are frozen:
    training could not make up for their loss.

    Args:
        model (nn.Module): The traced model.
        union_find (ChannelUnionFind): The ties of the trace; gets those of untrained weights.
        flops (list[tuple]): ``(coefficient, *factors)`` for each operation; a factor is the nodes
            of an axis (None if it cannot shrink) and its length.
        layers (list[tuple]): Name, key, inputs and outputs of each layer call, the last two as
            such a factor and how often it counts.
        unused_parameters (list[str]): Parameters that the run did not reach.
        attributes (dict): Module and attribute to the nodes of each axis that had its value as
            its length.
    """
    parameters = dict(model.named_parameters())
    tensors = {**dict(model.named_buffers()), **parameters}
    for dim in union_find.dims:
        tensor = tensors[dim.name]
        if not tensor.requires_grad and tensor.dim() > 1:
            nodes = union_find.nodes(dim.name, dim.axis, tensor.shape[dim.axis])
            if union_find.outputs[nodes].all():
                union_find.freeze(nodes, NOT_TRAINED)

    root = union_find.solve()
    is_output = union_find.outputs
    makes_output = np.zeros(len(union_find), dtype=bool)
    makes_output[root[is_output]] = True
    free = np.flatnonzero((root != FROZEN) & makes_output[root])
    groups, group_of_node = _group(union_find, root, free, is_output)

    def size_of(nodes: np.ndarray) -> Size:
        owner = group_of_node[nodes]
        counts = np.bincount(owner[owner >= 0], minlength=len(groups))
        per_channel = {int(g): counts[g] / groups[g].size for g in np.flatnonzero(counts)}
        return int((owner < 0).sum()), per_channel

    by_tensor = defaultdict(dict)
    for dim, size in zip(
        union_find.dims, _axis_sizes(union_find, group_of_node, groups), strict=True
    ):
        by_tensor[dim.name][dim.axis] = size
    params = Cost(len(groups))
    for name, tensor in parameters.items():
        sizes = by_tensor.get(name, {})
        params.add(1, *(sizes.get(axis, (size, {})) for axis, size in enumerate(tensor.shape)))

    def factor_of(nodes: np.ndarray | None, size: int) -> Size:
        return (size, {}) if nodes is None else size_of(nodes)

    macs = Cost(len(groups))
    for coefficient, *factors in flops:
        macs.add(coefficient, *(factor_of(*factor) for factor in factors))
    calls = [
        LayerCall(name, key, *(_times(factor_of(*factor), n) for *factor, n in axes))
        for name, key, *axes in layers
    ]
    return PrunableChannels(
        groups=groups,
        params=params,
        flops=macs,
        calls=calls,
        frozen=union_find.reasons(),
        unused_parameters=unused_parameters,
        attributes={key: _first_variable(map(size_of, axes)) for key, axes in attributes.items()},
    )


def _times(size: Size, factor: float) -> Size:
    """Return a length that counts several times, as the inputs of each of several groups."""
    fixed, per_channel = size
    return round(fixed * factor), {g: n * factor for g, n in per_channel.items()}


def _first_variable(sizes: Iterable[Size]) -> Size:
    """Return the first size that can shrink, else the first of all."""
    sizes = list(sizes)
    return next((size for size in sizes if size[1]), sizes[0])


def _axis_sizes(
    union_find: ChannelUnionFind, group_of_node: np.ndarray, groups: list[ChannelGroup]
) -> list[Size]:
    """Return the size of every axis that has nodes, as fixed part and channels."""
    # Count (axis, group) pairs with one bincount over a flattened table.
    axis, _ = union_find.locate(np.arange(1, len(union_find)))
    columns = len(groups) + 1  # group -1, for nodes that stay, is column 0
    cells = np.bincount(
        axis * columns + group_of_node[1:] + 1, minlength=len(union_find.dims) * columns
    )
    counts = cells.reshape(len(union_find.dims), columns)
    sizes: list[Size] = [(int(fixed), {}) for fixed in counts[:, 0]]
    for a, g in zip(*np.nonzero(counts[:, 1:]), strict=True):
        sizes[a][1][int(g)] = counts[a, g + 1] / groups[g].size
    return sizes


def _group(
    union_find: ChannelUnionFind, root: np.ndarray, free: np.ndarray, is_output: np.ndarray
) -> tuple[list[ChannelGroup], np.ndarray]:
    """Put channels (sets of nodes with one root) that hold the same axes into one group.

    Args:
        union_find (ChannelUnionFind): The nodes.
        root (np.ndarray): Root of every node, int64 of shape ``[nodes]``.
        free (np.ndarray): The nodes that can be removed, ascending.
        is_output (np.ndarray): Whether a node is an output of a layer, bool of shape ``[nodes]``.

    Returns:
        tuple[list[ChannelGroup], np.ndarray]: The groups, and the group of every node (-1 for
        none), int64 of shape ``[nodes]``.
    """
    group_of_node = np.full(len(union_find), -1)
    if not len(free):
        return [], group_of_node
    # Sorted by root, the nodes of a channel stand side by side. Nodes are numbered axis by axis,
    # and a stable sort leaves those of a channel in that order.
    free = free[np.argsort(root[free], kind='stable')]
    axis, index = union_find.locate(free)
    channel_starts = np.flatnonzero(np.r_[True, np.diff(root[free]) != 0])
    group_of_channel = _kinds(axis, channel_starts, len(union_find.dims))
    nodes_per_channel = np.diff(np.r_[channel_starts, len(free)])
    group = np.repeat(group_of_channel, nodes_per_channel)
    group_of_node[free] = group

    # Now by (group, axis), one number for both. The sort is stable, so within a pair the channels
    # stay in their order, each with its k entries: a reshape gives Member.index.
    pair = group * len(union_find.dims) + axis
    order = np.argsort(pair, kind='stable')
    group, axis, index = group[order], axis[order], index[order]
    starts = np.flatnonzero(np.r_[True, np.diff(pair[order]) != 0])
    outputs = np.logical_and.reduceat(is_output[free[order]], starts)
    sizes = np.bincount(group_of_channel).tolist()
    groups = [ChannelGroup(g, [], size) for g, size in enumerate(sizes)]
    for start, indices, output in zip(starts, np.split(index, starts[1:]), outputs, strict=True):
        dim = union_find.dims[axis[start]]
        norm = union_find.following_norms.get(dim.name, []) if output else []
        indices = indices.reshape(sizes[group[start]], -1)
        groups[group[start]].members.append(
            Member(dim.name, dim.axis, indices, bool(output), norm)
        )
    return groups, group_of_node


def _kinds(axis: np.ndarray, channel_starts: np.ndarray, num_axes: int) -> np.ndarray:
    """Number the kinds of channels: those that hold the same axes are of one kind.

    Args:
        axis (np.ndarray): Axis of every node, channel by channel, int64 of shape ``[nodes]``.
        channel_starts (np.ndarray): Where each channel begins, int64 of shape ``[channels]``.
        num_axes (int): Number of axes.

    Returns:
        np.ndarray: Kind of every channel, int64 of shape ``[channels]``, from 0 in the order in
        which the model reached them.
    """
    # A channel's signature is the multiset of its axes, as a sum of one random number each: equal
    # axes have equal sums, and others differ but for a collision of 64-bit numbers (uint64 wraps
    # around, which does no harm). To compare the axes themselves would be a Python loop over all
    # channels. The seed is fixed, so that all processes of a run number alike.
    marks = np.random.Generator(np.random.PCG64(0)).integers(
        0, 2**63, size=num_axes, dtype=np.uint64
    )
    signature = np.add.reduceat(marks[axis], channel_starts)
    _, first, kind = np.unique(signature, return_index=True, return_inverse=True)
    # np.unique numbers by signature, that is by chance; number by the first channel instead.
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[kind]
