# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Layers: where channels are made and used up."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from ..channel_ids import FROZEN, ChannelLabel
from .call import Call, is_zero, label_axes, make_label, rule


@rule('convolution', '_convolution', 'convolution_overrideable')
def convolution(call: Call) -> ChannelLabel | None:
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    return convolve(call, x, weight, bias, call.out, groups, transposed)


def convolve(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    groups: int = 1,
    transposed: bool = False,
) -> ChannelLabel | None:
    """Ties of a convolution of any kind, its multiply-accumulates, and the label of ``out``."""
    x_label, w_label = call.label_of(x), call.label_of(weight)
    channels, w_axes = label_axes(x_label).get(1), label_axes(w_label)
    call.freeze(x_label, [a for a in label_axes(x_label) if a != 1], 'spatial or batch axis')
    for axis in w_axes.keys() - {0, 1}:
        call.nodes.tie(w_axes[axis], np.int64(FROZEN))  # a kernel never shrinks: no news
    inputs, outputs = (0, 1) if transposed else (1, 0)
    places = (x if transposed else out)[0, 0].numel() * x.shape[0] * weight[0, 0].numel()
    made_by, used_by = w_axes.get(outputs), w_axes.get(inputs)
    per_group = weight.shape[1]
    alone = False  # whether an output channel reads nothing but the input channel it is tied to

    if groups == 1:
        call.tie(channels, used_by)
        call.count_flops(places, (made_by, out.shape[1]), (used_by, weight.shape[inputs]))
    elif transposed:
        call.freeze(x_label, [1], 'grouped transposed convolution')
        call.freeze(w_label, None, 'grouped transposed convolution')
        call.count_flops(places * weight.shape[0] * per_group)
        return None
    elif removes_whole_groups(groups, per_group, call.module):
        alone = True
        made_by = _tie_whole_groups(call, channels, made_by, groups)
        call.freeze(w_label, [1], 'inputs of a group')
        call.count_flops(places * per_group, (made_by, out.shape[1]))
    else:
        if channels is not None:
            channels = call.tie_blocks(channels.reshape(groups, -1))
        call.tie(channels, used_by)
        if made_by is not None:
            call.tie_blocks(made_by.reshape(groups, -1))
        call.count_flops(places, (made_by, out.shape[1]), (used_by, per_group))

    zero = is_zero(w_label)
    if alone:
        zero |= is_zero(x_label)
    elif channels is not None and not (is_zero(x_label) or zero):
        call.freeze(x_label, [1], 'product over channels that are not 0 when masked')
    if bias is not None:
        b_label = call.label_of(bias)
        call.tie(label_axes(b_label).get(0), made_by)
        zero &= is_zero(b_label)
    if made_by is None:
        return None
    call.nodes.mark_output(made_by)
    return ChannelLabel({1: made_by}, zero, call.nodes.owner(made_by))


WHOLE_GROUPS_KEY = '_mmdet_adasap_whole_groups'
"""Attribute of a grouped convolution that was cut: how it shrinks, then and ever after."""


def removes_whole_groups(
    groups: int, inputs_per_group: int, module: nn.Module | None = None
) -> bool:
    """How a grouped convolution shrinks.

    With many narrow groups (depthwise, ResNeXt) whole groups go and ``groups`` with them; with
    few wide ones (ShuffleNet, RegNet) every group loses the same positions.
    """
    return getattr(module, WHOLE_GROUPS_KEY, groups >= inputs_per_group)


def _tie_whole_groups(
    call: Call, channels: np.ndarray | None, made_by: np.ndarray | None, groups: int
) -> np.ndarray | None:
    """Tie all inputs and outputs of a group; returns the output nodes, if they can go."""
    if channels is None or made_by is None:
        call.tie(channels, made_by)
        return None
    channels, outputs = channels.reshape(groups, -1), made_by.reshape(groups, -1)
    call.tie_blocks(np.concatenate([channels, outputs], axis=1).T)
    return made_by


@rule('mm', 'addmm', 'bmm', 'baddbmm')
def matrix_product(call: Call) -> ChannelLabel | None:
    *added, left, right = call.args[:3] if 'add' in call.operation else call.args[:2]
    row, column = left.dim() - 2, left.dim() - 1
    a, b = call.label_of(left), call.label_of(right)
    a_axes, b_axes = label_axes(a), label_axes(b)
    if left.dim() == 3:
        call.tie(a_axes.get(0), b_axes.get(0))
    call.tie(a_axes.get(column), b_axes.get(row))
    if column in a_axes and not (a.zero or is_zero(b)):
        call.freeze(a, [column], 'product over channels that are not 0 when masked')
    axes = {axis: v for axis, v in a_axes.items() if axis < column}
    if column in b_axes:
        axes[column] = b_axes[column]
        call.nodes.mark_output(b_axes[column])
    call.count_flops(
        1,
        *([(a_axes.get(0), left.shape[0])] if left.dim() == 3 else []),
        (a_axes.get(row), left.shape[row]),
        (a_axes.get(column), left.shape[column]),
        (b_axes.get(column), right.shape[column]),
    )
    zero = all(label.zero for label in (a, b) if label is not None)
    for bias in added:
        offset, label = call.out.dim() - bias.dim(), call.label_of(bias)
        bias_axes = {axis + offset: v for axis, v in label_axes(label).items()}
        zero &= is_zero(label) and axes.keys() <= bias_axes.keys()
        for axis in set(axes) | set(bias_axes):
            if axis - offset >= 0 and bias.shape[axis - offset] > 1:
                call.tie(axes.get(axis), bias_axes.get(axis))
    result = make_label(axes, zero)
    if column in b_axes:
        result.producer = call.nodes.owner(b_axes[column])
    return result


@rule(
    'native_batch_norm',
    '_native_batch_norm_legit',
    '_native_batch_norm_legit_no_training',
    '_batch_norm_with_update',
    '_batch_norm_no_update',
    'cudnn_batch_norm',
    'miopen_batch_norm',
)
def batch_norm(call: Call) -> list[ChannelLabel | None]:
    x, *others = call.args[:5]
    label = call.label_of(x)
    channels = label_axes(label).get(1)
    affine = others[0] is not None and others[1] is not None
    for tensor in others:
        if isinstance(tensor, Tensor):
            call.tie(label_axes(call.label_of(tensor)).get(0), channels)
    _note_following_norm(call, label, others[:2])
    batch_statistics = any(flag is True for flag in call.args[3:6])
    per_value = (4 if batch_statistics else 1) + (others[0] is not None)
    call.count_flops(per_value * x.numel() // x.shape[1], (channels, x.shape[1]))
    return [make_label(dict(label_axes(label)), affine)]


def _note_following_norm(
    call: Call, label: ChannelLabel | None, affine: Sequence[Tensor | None]
) -> None:
    """Note the scale and shift of a normalisation of what one layer returns."""
    vectors = [label_axes(call.label_of(t)).get(0) for t in affine if isinstance(t, Tensor)]
    if label is not None and label.producer and vectors and all(v is not None for v in vectors):
        names = call.nodes.following_norms.setdefault(label.producer, [])
        names += [name for name in map(call.nodes.owner, vectors) if name not in names]


@rule('native_group_norm')
def group_norm(call: Call) -> list[ChannelLabel | None]:
    """A group is normalised on its own, so whole groups go, and ``num_groups`` with them."""
    x, weight, bias = call.args[:3]
    groups = call.args[6]
    label = call.label_of(x)
    channels = label_axes(label).get(1)
    affine = weight is not None and bias is not None
    if groups == 1 or not affine:
        call.freeze(label, [1], 'a GroupNorm of one group or without weights')
        channels = None
    elif channels is not None:
        call.tie_blocks(channels.reshape(groups, -1).T)
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor):
            call.tie(label_axes(call.label_of(tensor)).get(0), channels)
    _note_following_norm(call, label, (weight, bias))
    per_value = 4 + (weight is not None)
    call.count_flops(per_value * x.numel() // x.shape[1], (channels, x.shape[1]))
    axes = {a: v for a, v in label_axes(label).items() if a != 1 or channels is not None}
    return [make_label(axes, affine)]


@rule('native_layer_norm')
def layer_norm(call: Call) -> list[ChannelLabel | None]:
    """What is normalised over stays whole."""
    x, shape, weight, bias = call.args[:4]
    label = call.label_of(x)
    first = x.dim() - len(shape)
    call.freeze(label, range(first, x.dim()), 'a LayerNorm')
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor):
            call.freeze(call.label_of(tensor), None, 'a LayerNorm')
    call.count_flops((4 + (weight is not None)) * x.numel())
    return [make_label({a: v for a, v in label_axes(label).items() if a < first}, False)]
