# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Spatial operations on tensors of shape ``[N, C, ...]``."""

import numpy as np

from ..channel_ids import ChannelLabel
from ..layer_calls import LayerKey
from .call import Call, is_zero, label_axes, make_label, rule


@rule(
    'max_pool2d_with_indices',
    'max_pool2d',
    'avg_pool2d',
    'adaptive_max_pool2d',
    'upsample_nearest2d',
    '_upsample_nearest_exact2d',
    'upsample_bilinear2d',
    'upsample_bicubic2d',
    'reflection_pad2d',
    'replication_pad2d',
)
def spatial(call: Call) -> ChannelLabel | None:
    label = call.label_of(call.args[0])
    out = call.out[0] if isinstance(call.out, tuple) else call.out
    channel = out.dim() - 3  # of [N, C, H, W] or, without a batch, [C, H, W]
    call.freeze(label, [a for a in label_axes(label) if a > channel], 'spatial axis')
    axes = {a: v for a, v in label_axes(label).items() if a <= channel}
    # Operations for each value as mmengine counts them; pooling and padding are free there.
    scale = {'upsample_nearest2d': 1, 'upsample_bilinear2d': 4}.get(call.operation, 0)
    call.count_flops(
        scale * out.numel() // out.shape[channel], (axes.get(channel), out.shape[channel])
    )
    if call.operation.startswith('max_pool2d'):
        _record_pooling(call, axes.get(channel), channel)
    kept = make_label(axes, is_zero(label))
    return [kept, kept] if isinstance(call.out, tuple) else kept


def _record_pooling(call: Call, nodes: np.ndarray | None, channel: int) -> None:
    """Keep a pooling as it was called, for what runs between the layers that are timed."""
    x = call.args[0]
    kernel = tuple(call.args[1])
    ones = (1,) * len(kernel)
    key = LayerKey(
        op='max_pool',
        kernel=kernel,
        stride=tuple(call.arg(2, None) or kernel),
        padding=tuple(call.arg(3, ones)) if len(call.args) > 3 else (0,) * len(kernel),
        dilation=tuple(call.arg(4, ones)),
        groups=0,
        group_width=(1, 1),
        batch=x.shape[0] if channel else 1,
        map=tuple(x.shape[channel + 1 :]),
        dtype=str(x.dtype).removeprefix('torch.'),
    )
    axis = (nodes, x.shape[channel], 1)
    call.record_layer(key, axis, axis)


@rule('_adaptive_avg_pool2d', 'adaptive_avg_pool2d')
def adaptive_average(call: Call) -> ChannelLabel | None:
    x = call.args[0]
    channel = x.dim() - 3
    label = spatial(call)
    call.count_flops(
        x.numel() // x.shape[channel], (label_axes(label).get(channel), x.shape[channel])
    )
    return label


@rule('constant_pad_nd')
def pad(call: Call) -> ChannelLabel | None:
    x, amounts = call.args[:2]
    label = call.label_of(x)
    padded = {x.dim() - 1 - i // 2 for i, amount in enumerate(amounts) if amount}
    call.freeze(label, padded, 'padding along channels')
    axes = {a: v for a, v in label_axes(label).items() if a not in padded}
    # Padded with another value than 0, a masked channel is 0 no longer.
    return make_label(axes, is_zero(label) and not call.arg(2, 0))


@rule('grid_sampler_2d')
def grid_sample(call: Call) -> ChannelLabel | None:
    x, grid = call.args[:2]
    label = call.label_of(x)
    call.freeze(call.label_of(grid), None, 'sampling positions')
    call.freeze(label, [a for a in label_axes(label) if a != 1], 'spatial axis')
    return make_label({a: v for a, v in label_axes(label).items() if a == 1}, is_zero(label))


@rule('im2col')
def im2col(call: Call) -> ChannelLabel | None:
    """Repeat each channel for the places of the kernel: ``[N, C * kernel, places]``."""
    x, kernel = call.args[0], int(np.prod(call.args[1]))
    label = call.label_of(x)
    call.freeze(label, [a for a in label_axes(label) if a != 1], 'spatial axis')
    axes = {a: np.repeat(v, kernel) for a, v in label_axes(label).items() if a == 1}
    return make_label(axes, is_zero(label))


@rule('pixel_shuffle')
def pixel_shuffle(call: Call) -> ChannelLabel | None:
    """Tie the ``r * r`` channels that become one map."""
    x, factor = call.args[:2]
    label, channel = call.label_of(x), x.dim() - 3
    call.freeze(label, [a for a in label_axes(label) if a > channel], 'spatial axis')
    axes = {a: v for a, v in label_axes(label).items() if a <= channel}
    if channel in axes:
        axes[channel] = call.tie_blocks(axes[channel].reshape(-1, factor * factor).T)
    return make_label(axes, is_zero(label))
