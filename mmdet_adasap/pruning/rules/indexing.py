# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Parts of tensors: read from and written into."""

import torch
from torch import Tensor

from ..channel_ids import ChannelLabel
from .call import Call, is_fresh, is_zero, label_axes, make_label, rule


@rule('slice', 'narrow')
def slice_(call: Call) -> ChannelLabel | None:
    """Tie the positions of equal parts: x[:, :4] and x[:, 4:] must lose the same ones."""
    x, label = call.args[0], call.label_of(call.args[0])
    axis = call.arg(1, 0, 'dim') % x.dim()
    size, part = x.shape[axis], call.out.shape[axis]
    axes = dict(label_axes(label))
    if part == size or axis not in axes:
        return make_label(axes, is_zero(label))
    start, step = call.arg(2, 0, 'start') or 0, call.arg(4, 1, 'step')
    start += size if start < 0 else 0
    if call.operation == 'slice' and step == 1 and part and size % part == start % part == 0:
        if part == 1:
            call.splits.reject(axes[axis])
        axes[axis] = call.tie_blocks(axes[axis].reshape(-1, part))
    else:
        call.freeze(label, [axis], 'an uneven part of the channels')
        del axes[axis]
    return make_label(axes, is_zero(label))


@rule('select', 'unbind')
def select(call: Call) -> ChannelLabel | list[ChannelLabel | None] | None:
    x, label = call.args[0], call.label_of(call.args[0])
    axis = call.arg(1, 0, 'dim') % x.dim()
    if axis in label_axes(label):
        call.splits.reject(label.axes[axis])
    call.freeze(label, [axis], 'one of the channels selected')
    kept = {a - (a > axis): v for a, v in label_axes(label).items() if a != axis}
    result = make_label(kept, is_zero(label))
    return [result] * len(call.out) if isinstance(call.out, list | tuple) else result


@rule('index_select')
def index_select(call: Call) -> ChannelLabel | None:
    x, axis, index = call.args
    label = call.label_of(x)
    call.freeze(call.label_of(index), None, 'an index')
    call.freeze(label, [axis % x.dim()], 'channels selected by an index')
    return make_label(
        {a: v for a, v in label_axes(label).items() if a != axis % x.dim()}, is_zero(label)
    )


@rule('index')
def index(call: Call) -> ChannelLabel | None:
    """Pick entries along other axes than that of the channels."""
    x, indices = call.args[:2]
    label = call.label_of(x)
    places = _places_after_index(call, x, indices)
    call.freeze(label, [a for a in label_axes(label) if a not in places], 'an index on channels')
    axes = {places[a]: v for a, v in label_axes(label).items() if a in places}
    return make_label(axes, is_zero(label))


@rule('index_put_', 'index_put', '_index_put_impl_', '_unsafe_index_put')
def index_put(call: Call) -> ChannelLabel | None:
    """Write along other axes than that of the channels.

    A new tensor takes the label of what is written into it.
    """
    target, indices, values = call.args[:3]
    old, new = call.label_of(target), call.label_of(values)
    places = _places_after_index(call, target, indices)
    call.freeze(old, [a for a in label_axes(old) if a not in places], 'an index on channels')
    # Axes of the values count from the last axis of the region that is written.
    rank = len(places) + _index_rank(indices)
    axes = {}
    for axis, place in places.items():
        own = place - rank + values.dim()
        vector = label_axes(new).get(own) if own >= 0 else None
        present = label_axes(old).get(axis)
        if vector is not None and (present is not None or not is_fresh(old)):
            call.tie(present, vector)
        elif vector is None and own >= 0 and values.shape[own] > 1:
            call.tie(present, None)
        if present is not None or (vector is not None and is_fresh(old)):
            axes[axis] = vector if present is None else present
    used = {p - rank + values.dim() for p in places.values()}
    call.freeze(
        new, [a for a in label_axes(new) if a not in used], 'values written along an index'
    )
    return make_label(axes, is_zero(old) and is_zero(new))


def _places_after_index(call: Call, x: Tensor, indices: list) -> dict[int, int]:
    """Return where the axes that an index leaves alone are in the result."""
    for tensor in indices:
        if tensor is not None:
            call.freeze(call.label_of(tensor), None, 'an index')
    consumed, positions, axis = [], [], 0
    for position, tensor in enumerate(indices):
        width = 1 if tensor is None else _consumes(tensor)
        if tensor is not None:
            consumed += range(axis, axis + width)
            positions.append(position)
        axis += width
    rank = _index_rank(indices)
    # NumPy's rule for advanced indexing: the new axes take the place of the indexed ones if these
    # are side by side, else they come first.
    together = positions[-1] - positions[0] + 1 == len(positions)
    first = consumed[0] if together else 0
    alone = [a for a in range(x.dim()) if a not in consumed]
    return {a: i + (rank if i >= first else 0) for i, a in enumerate(alone)}


def _index_rank(indices: list) -> int:
    """Return how many axes an index puts in the place of those that it consumes."""
    return max(1 if _is_mask(t) else t.dim() for t in indices if t is not None)


def _consumes(tensor: Tensor) -> int:
    """Return how many axes one tensor of an index consumes: a mask as many as it has."""
    return tensor.dim() if _is_mask(tensor) else 1


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.bool, torch.uint8)
