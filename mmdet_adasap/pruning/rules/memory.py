# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Operations that look at the memory of a tensor in another way, or give a tensor another one."""

from torch import Tensor

from ..channel_ids import ChannelLabel
from .call import Call, is_fresh, is_zero, label_axes, make_label, rule
from .shapes import view


@rule('as_strided', 'as_strided_')
def as_strided(call: Call) -> ChannelLabel | None:
    """Follow what only reorders axes or adds and drops those of length 1."""
    x, label = call.args[0], call.label_of(call.args[0])
    places = _places_by_stride(x, call.out)
    if places is None:
        _freeze_memory(call, call.out, 'as_strided')
        return None
    call.freeze(label, [a for a in label_axes(label) if a not in places], 'as_strided')
    kept = {places[a]: v for a, v in label_axes(label).items() if a in places}
    return make_label(kept, is_zero(label))


def _places_by_stride(old: Tensor, new: Tensor) -> dict[int, int] | None:
    """Return where each axis is now, by its stride; None if it is another part of the memory."""
    before, after = (
        {(t.stride(a), t.shape[a]): a for a in range(t.dim()) if t.shape[a] > 1}
        for t in (old, new)
    )
    # Two axes of one stride and length, as in a sliding window, are one key.
    is_whole = all(
        len(axes) == sum(n > 1 for n in t.shape) for t, axes in ((old, before), (new, after))
    )
    same_start = old.storage_offset() == new.storage_offset()
    if not (is_whole and same_start and before.keys() == after.keys()):
        return None
    return {axis: after[key] for key, axis in before.items()}


@rule('resize_', 'resize_as_')
def resize(call: Call) -> ChannelLabel | None:
    """Follow a new shape for as many entries; another number of them freezes."""
    x, out, label = call.args[0], call.out, call.label_of(call.args[0])
    if is_fresh(label) or not x.numel():
        return ChannelLabel({}, is_zero(label) and x.numel() >= out.numel())
    in_order = x.is_contiguous() and out.is_contiguous()
    if x.numel() == out.numel() and in_order:
        result = view(call)
    else:
        _freeze_memory(call, out, 'resize_ to another number or order of entries')
        result = None
    if call.operation == 'resize_as':
        pattern = label_axes(call.label_of(call.args[1]))
        for axis, size in enumerate(out.shape):
            if size > 1:
                call.tie(label_axes(result).get(axis), pattern.get(axis))
    return result


@rule('set_')
def set_memory(call: Call) -> ChannelLabel | None:
    """Follow a tensor that becomes another one; another view of its memory freezes that."""
    label = call.label_of(call.out)
    if label is None:
        _freeze_memory(call, call.out, 'set_ to another view of its memory')
    return label


def _freeze_memory(call: Call, tensor: Tensor, why: str) -> None:
    """Freeze all that is known to be in the memory of a tensor."""
    for label in (call.label_of(call.args[0]), *call.labels_in_memory(tensor)):
        call.freeze(label, None, why)
