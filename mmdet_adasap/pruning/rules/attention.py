# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Attention: a head is removed as a whole, with its part of queries, keys, values and projection.

The width of a head stays, since products of queries and keys are scaled by its square root.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..channel_ids import ChannelLabel
from .call import Call, is_zero, label_axes, make_label, rule


def head_count(module: nn.Module | None) -> int | None:
    """Return the ``num_heads`` of a module; None for all that is no attention."""
    heads = getattr(module, 'num_heads', None)
    return heads if type(heads) is int else None


def find_head_axis(heads: int, sizes: Sequence[int]) -> int | None:
    """Return the axis of the heads among the sizes that a channel axis is split into.

    The width follows the heads, as in ``[3, heads, width]`` for queries, keys and values. So the
    last axis but one is tried first: with three heads, or as many as each is wide, several axes
    have the right size.
    """
    order = sorted(range(len(sizes)), key=lambda axis: (axis != len(sizes) - 2, -axis))
    return next((axis for axis in order if sizes[axis] == heads), None)


@rule(
    '_scaled_dot_product_flash_attention_for_cpu',
    '_scaled_dot_product_flash_attention',
    '_scaled_dot_product_efficient_attention',
    '_scaled_dot_product_cudnn_attention',
    '_scaled_dot_product_fused_attention_overrideable',
)
def scaled_dot_product_attention(call: Call) -> list[ChannelLabel | None]:
    """Heads, axis 1 of ``[N, heads, tokens, width]``, do not see each other.

    No FLOPs are counted for it, as in mmengine's count.
    """
    added = [t for t in (*call.args[3:], *call.kwargs.values()) if isinstance(t, Tensor)]
    queries, keys, values = call.args[:3]
    labels = [call.label_of(t) for t in (queries, keys, values)]
    for label in labels:
        call.freeze(label, [a for a in label_axes(label) if a > 1], 'tokens or width of a head')
    axes = {}
    for axis in (0, 1):
        vectors = [label_axes(label).get(axis) for label in labels]
        for tensor in added:
            own = axis - queries.dim() + tensor.dim()  # broadcasting aligns the last axes
            if own >= 0 and tensor.shape[own] > 1:
                vectors.append(label_axes(call.label_of(tensor)).get(own))
        for vector in vectors[1:]:
            call.tie(vectors[0], vector)
        if all(vector is not None for vector in vectors):
            axes[axis] = vectors[0]
    for tensor in added:  # masks and biases, [..., tokens, tokens]
        label = call.label_of(tensor)
        call.freeze(label, [a for a in label_axes(label) if a >= tensor.dim() - 2], 'tokens')
    return [make_label(axes, is_zero(labels[2]))]
