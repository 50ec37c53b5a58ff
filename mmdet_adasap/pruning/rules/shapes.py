# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Changes of shape and of the order of axes."""

from collections.abc import Iterable

import numpy as np
import torch

from ..channel_ids import FROZEN, ChannelLabel
from .attention import find_head_axis, head_count
from .call import Call, is_zero, label_axes, make_label, rule


@rule('view', '_unsafe_view', 'reshape', '_reshape_alias', '_reshape_copy')
def view(call: Call) -> ChannelLabel | None:
    """Match runs of old and new axes that hold the same number of entries.

    ``[2, 8, 6, 6]`` to ``[2, 288]`` has the runs 2 to 2 and 8, 6, 6 to 288.
    """
    x, label = call.args[0], call.label_of(call.args[0])
    if label is None:
        return None
    axes = {}
    for old, new in _runs(x.shape, call.out.shape):
        labelled = [a for a in old if a in label.axes]
        if not labelled:
            continue
        wide_old = [a for a in old if x.shape[a] > 1]
        wide_new = [a for a in new if call.out.shape[a] > 1]
        if len(labelled) > 1:
            call.freeze(label, labelled, 'several channel axes in one view')
        elif len(wide_new) == 1:
            # Flatten: each channel becomes `inner` neighbours (the axes behind it), and the whole
            # row of channels occurs `outer` times (the axes in front).
            (axis,) = labelled
            outer = int(np.prod([x.shape[a] for a in wide_old if a < axis], dtype=int))
            inner = int(np.prod([x.shape[a] for a in wide_old if a > axis], dtype=int))
            axes[wide_new[0]] = np.tile(np.repeat(label.axes[axis], inner), outer)
        elif len(wide_old) == 1:
            _split(call, label.axes[labelled[0]], wide_new, axes)
        else:
            call.freeze(label, labelled, 'view that mixes channels with other axes')
    return make_label(axes, label.zero)


def _runs(old: torch.Size, new: torch.Size) -> Iterable[tuple[list[int], list[int]]]:
    """Yield the shortest runs of axes, old and new, that have the same product of lengths."""
    i = j = 0
    while i < len(old) or j < len(new):
        left, right, a, b = [], [], 1, 1  # axes and products of both sides
        while not left or not right or a != b:
            if (a <= b and i < len(old)) or j >= len(new):
                if i >= len(old):
                    break
                a *= old[i]
                left.append(i)
                i += 1
            else:
                b *= new[j]
                right.append(j)
                j += 1
        yield left, right


def _split(call: Call, vector: np.ndarray, new: list[int], axes: dict[int, np.ndarray]) -> None:
    """Split a channel axis into several: channels live on along one, and the others tie them.

    That one is an axis along which nothing new is tied, if there is one, as after a flatten; in
    attention the axis of the heads; else the longest. An axis of which an earlier trace saw the
    model take single entries is passed over.

    Args:
        call (Call): The view.
        vector (np.ndarray): Nodes of the axis.
        new (list[int]): The axes that it becomes.
        axes (dict[int, np.ndarray]): Gets the nodes of the axis that channels live on along.
    """
    blocks = vector.reshape([call.out.shape[a] for a in new])
    # For each axis: what would be tied, position by position, if channels lived on along it.
    rows = [np.moveaxis(blocks, i, -1).reshape(-1, size) for i, size in enumerate(blocks.shape)]
    stays = next((i for i, row in enumerate(rows) if (row == row[0]).all()), None)
    heads = head_count(call.module)
    is_choice = stays is None
    this_view = call.module_name, tuple(new), blocks.shape
    wrong = call.splits.wrong(this_view)
    sizes = [0 if i in wrong else size for i, size in enumerate(blocks.shape)]
    if stays is None and heads is not None:
        if heads == 1:
            call.nodes.freeze(vector, f'the only head of {call.module_name}')
            return
        stays = find_head_axis(heads, sizes)
    if stays is None:
        stays = int(np.argmax(sizes))
    axes[new[stays]] = call.tie_blocks(rows[stays])
    if is_choice:
        call.splits.note(this_view, stays, len(sizes), axes[new[stays]])


@rule('permute', 'transpose', 'transpose_', 't', 't_', 'numpy_T')
@rule('swapaxes', 'swapaxes_', 'swapdims', 'swapdims_')
def permute(call: Call) -> ChannelLabel | None:
    x, label = call.args[0], call.label_of(call.args[0])
    if label is None:
        return None
    order = list(range(x.dim()))
    if call.operation == 'permute':
        order = [d % x.dim() for d in call.args[1]]
    elif call.operation in ('transpose', 'swapaxes', 'swapdims'):
        a, b = (d % x.dim() for d in call.args[1:3])
        order[a], order[b] = order[b], order[a]
    else:
        order = order[::-1]
    return make_label({order.index(a): v for a, v in label.axes.items()}, label.zero)


@rule('unsqueeze', 'unsqueeze_')
def unsqueeze(call: Call) -> ChannelLabel | None:
    label = call.label_of(call.args[0])
    axis = call.args[1] % call.out.dim()
    axes = {a + (a >= axis): v for a, v in label_axes(label).items()}
    return make_label(axes, is_zero(label))


@rule('squeeze', 'squeeze_')
def squeeze(call: Call) -> ChannelLabel | None:
    x, label = call.args[0], call.label_of(call.args[0])
    dims = call.arg(1, range(x.dim()))
    dims = [dims] if isinstance(dims, int) else dims
    removed = {d % x.dim() for d in dims if x.shape[d] == 1}
    if len(call.args) == 1:
        call.freeze(label, None, 'squeeze() without an axis, which would drop a last channel,')
    axes = {
        a - sum(d < a for d in removed): v
        for a, v in label_axes(label).items()
        if a not in removed
    }
    return make_label(axes, is_zero(label))


@rule('expand')
def expand(call: Call) -> ChannelLabel | None:
    x, label = call.args[0], call.label_of(call.args[0])
    offset = call.out.dim() - x.dim()
    axes = {a + offset: v for a, v in label_axes(label).items()}
    return make_label(axes, is_zero(label))


@rule('split', 'split_with_sizes', 'chunk')
@rule('unsafe_split', 'unsafe_split_with_sizes', 'unsafe_chunk')
def split(call: Call) -> list[ChannelLabel | None]:
    """Tie equal parts position by position: they stay equal only if all lose the same ones."""
    x, label = call.args[0], call.label_of(call.args[0])
    axis = call.arg(2, 0, 'dim') % x.dim()
    if label is None:
        return [None] * len(call.out)
    vector = label.axes.get(axis)
    others = {a: v for a, v in label.axes.items() if a != axis}
    if vector is None:
        return [make_label(dict(others), label.zero) for _ in call.out]
    sizes = {part.shape[axis] for part in call.out}
    if len(sizes) > 1:
        call.freeze(label, [axis], 'a split into unequal parts')
        return [make_label(dict(others), label.zero) for _ in call.out]
    parts = vector.reshape(len(call.out), -1)
    if parts.shape[1] == 1:
        call.splits.reject(vector)
    call.tie_blocks(parts)
    return [ChannelLabel({**others, axis: part}, label.zero) for part in parts]


@rule('cat', 'concatenate')
def cat(call: Call) -> ChannelLabel | None:
    # cat ignores empty 1-dim tensors, for which it was used as a start value (legacy).
    tensors = [t for t in call.args[0] if t.numel() or t.dim() > 1]
    labels = [call.label_of(t) for t in tensors]
    axis = call.arg(1, 0, 'dim') % call.out.dim()
    if all(label is None for label in labels):
        return None
    axes = {}
    if any(axis in label_axes(label) for label in labels):
        axes[axis] = np.concatenate(
            [
                label_axes(label).get(axis, np.full(t.shape[axis], FROZEN))
                for t, label in zip(tensors, labels, strict=True)
            ]
        )
    for other in {a for label in labels for a in label_axes(label)} - {axis}:
        _share(call, labels, other, axes, other)
    return make_label(axes, all(label.zero for label in labels if label is not None))


def _share(call: Call, labels: list, axis: int, axes: dict[int, np.ndarray], place: int) -> None:
    """Tie the parts along an axis that they share; set ``axes[place]`` if all can shrink."""
    vectors = [label_axes(label).get(axis) for label in labels]
    first = next(v for v in vectors if v is not None)
    for vector in vectors:
        call.tie(first, vector)
    if all(v is not None for v in vectors):
        axes[place] = first


@rule('stack')
def stack(call: Call) -> ChannelLabel | None:
    tensors, axis = call.args[0], call.arg(1, 0, 'dim') % call.out.dim()
    labels = [call.label_of(t) for t in tensors]
    axes = {}
    for other in {a for label in labels for a in label_axes(label)}:
        _share(call, labels, other, axes, other + (other >= axis))
    return make_label(axes, all(label.zero for label in labels if label is not None))


@rule('repeat')
def repeat(call: Call) -> ChannelLabel | None:
    x, times = call.args[:2]
    label, offset = call.label_of(x), len(call.args[1]) - x.dim()
    axes = {a + offset: np.tile(v, times[a + offset]) for a, v in label_axes(label).items()}
    return make_label(axes, is_zero(label))


@rule('roll', 'flip')
def shift(call: Call) -> ChannelLabel | None:
    """Shift or mirror along other axes than that of the channels."""
    x, label = call.args[0], call.label_of(call.args[0])
    dims = call.arg(2 if call.operation == 'roll' else 1, (), 'dims')
    dims = [dims] if isinstance(dims, int) else dims
    dims = {d % x.dim() for d in dims} or set(range(x.dim()))
    call.freeze(label, dims, f'{call.operation} of channels')
    return make_label(
        {a: v for a, v in label_axes(label).items() if a not in dims}, is_zero(label)
    )
