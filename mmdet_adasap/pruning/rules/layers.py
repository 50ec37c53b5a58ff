# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Layers: where channels are produced and consumed."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from ..channel_ids import FROZEN, ChannelLabel
from ..layer_calls import LayerKey
from .call import Call, is_zero, label_axes, make_label, rule


@rule('convolution', '_convolution', 'convolution_overrideable')
def convolution(call: Call) -> ChannelLabel | None:
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    _record_convolution(call, x, weight, groups, transposed)
    return convolve(call, x, weight, bias, call.out, groups, transposed)


def _record_convolution(
    call: Call, x: Tensor, weight: Tensor, groups: int, transposed: bool
) -> None:
    """Keep a convolution as it was called; the arguments are those of :func:`convolve`."""
    w_axes = label_axes(call.label_of(weight))
    inputs, outputs = x.shape[1] // groups, call.out.shape[1] // groups
    whole = groups > 1 and removes_whole_groups(groups, inputs, call.module)
    axes = x.dim() - 2
    stride, padding, dilation = (
        tuple(values) * (axes // len(values)) for values in (call.args[3:6])
    )
    key = LayerKey(
        op='conv_transpose' if transposed else 'conv',
        kernel=tuple(weight.shape[2:]),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=0 if whole else groups,
        group_width=(inputs, outputs) if whole else None,
        batch=x.shape[0],
        map=tuple(x.shape[2:]),
        dtype=str(x.dtype).removeprefix('torch.'),
    )
    # The axis of all groups, and that of the channels of one.
    nodes = w_axes.get(0), w_axes.get(1)
    length, one = weight.shape[:2]
    if whole:
        ratio = 1 / (inputs if transposed else outputs)
        found = [(nodes[0], length, ratio * inputs), (nodes[0], length, ratio * outputs)]
    else:
        found = [(nodes[1], one, groups), (nodes[0], length, 1)]
        found = found[::-1] if transposed else found
    call.record_layer(key, *found)


def convolve(
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    groups: int = 1,
    transposed: bool = False,
) -> ChannelLabel | None:
    """Tie the channels of a convolution, count its FLOPs, and return the label of ``out``.

    Args:
        call (Call): The operation.
        x (Tensor): Input, ``[N, C, ...]``.
        weight (Tensor): ``[out, in / groups, ...]``, or ``[in, out / groups, ...]`` if transposed.
        bias (Tensor, optional): ``[out]``.
        out (Tensor): Output, ``[N, out, ...]``.
        groups (int): Groups of the convolution. Defaults to 1.
        transposed (bool): Whether it is a transposed convolution. Defaults to False.
    """
    x_label, w_label = call.label_of(x), call.label_of(weight)
    channels, w_axes = label_axes(x_label).get(1), label_axes(w_label)
    call.freeze(x_label, [a for a in label_axes(x_label) if a != 1], 'spatial or batch axis')
    for axis in w_axes.keys() - {0, 1}:
        # Without a reason: that a kernel does not shrink is no news for a report.
        call.nodes.tie(w_axes[axis], np.int64(FROZEN))
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    # Multiply-accumulates for one input and one output channel.
    places = (x if transposed else out)[0, 0].numel() * x.shape[0] * weight[0, 0].numel()
    outputs, inputs = w_axes.get(out_axis), w_axes.get(in_axis)
    per_group = x.shape[1] // groups
    is_depthwise = False  # an output channel reads no input channel but those it is tied to

    if groups == 1:
        call.tie(channels, inputs)
        call.count_flops(places, (outputs, out.shape[1]), (inputs, per_group))
    elif removes_whole_groups(groups, per_group, call.module):
        is_depthwise = True
        if transposed:
            outputs = _outputs_of_groups(call, inputs, channels, out.shape[1], groups)
        else:
            outputs = _tie_whole_groups(call, channels, outputs, groups)
        call.freeze(w_label, [1], 'outputs of a group' if transposed else 'inputs of a group')
        call.count_flops(places * per_group, (outputs, out.shape[1]))
    else:
        if channels is not None:
            tied = call.tie_blocks(channels.reshape(groups, -1))
            channels = channels if transposed else tied
        call.tie(channels, inputs)
        if transposed:
            call.count_flops(places, (outputs, weight.shape[1]), (inputs, x.shape[1]))
            # The groups share the axis of the weight, which holds the positions of one.
            outputs = None if outputs is None else np.tile(outputs, groups)
        else:
            if outputs is not None:
                call.tie_blocks(outputs.reshape(groups, -1))
            call.count_flops(places, (outputs, out.shape[1]), (inputs, per_group))

    zero = is_zero(w_label)
    if is_depthwise:
        zero |= is_zero(x_label)
    # A removed input must add 0 to the sum: it is 0 itself, or its weights are.
    elif channels is not None and not (is_zero(x_label) or zero):
        call.freeze(x_label, [1], 'product over channels that are not 0 when masked')
    if bias is not None:
        b_label = call.label_of(bias)
        call.tie(label_axes(b_label).get(0), outputs)
        zero &= is_zero(b_label)
    if outputs is None:
        return None
    call.nodes.mark_output(outputs)
    return ChannelLabel({1: outputs}, zero, call.nodes.owner(outputs))


WHOLE_GROUPS_KEY = '_mmdet_adasap_whole_groups'
"""Attribute of a grouped convolution that was cut: whether it loses whole groups, also later."""


def removes_whole_groups(
    groups: int, inputs_per_group: int, module: nn.Module | None = None
) -> bool:
    """Return whether a grouped convolution loses whole groups.

    With many narrow groups (depthwise, ResNeXt) whole groups are removed, and ``groups`` shrinks.
    With few wide ones (ShuffleNet, RegNet) every group loses the same positions. The limit, as
    many groups as inputs in each, is an own choice: it leaves the finer choice of channels.

    Args:
        groups (int): Number of groups.
        inputs_per_group (int): Input channels of each.
        module (nn.Module, optional): The convolution; if it was cut before, that decides.
    """
    return getattr(module, WHOLE_GROUPS_KEY, groups >= inputs_per_group)


def _tie_whole_groups(
    call: Call, channels: np.ndarray | None, outputs: np.ndarray | None, groups: int
) -> np.ndarray | None:
    """Tie all inputs and outputs of a group; return the output nodes, if they can be removed."""
    if channels is None or outputs is None:
        call.tie(channels, outputs)
        return None
    rows = np.concatenate([channels.reshape(groups, -1), outputs.reshape(groups, -1)], axis=1)
    call.tie_blocks(rows.T)  # the columns of a row are tied to each other
    return outputs


def _outputs_of_groups(
    call: Call,
    inputs: np.ndarray | None,
    channels: np.ndarray | None,
    count: int,
    groups: int,
) -> np.ndarray | None:
    """Return the output nodes of a transposed convolution that loses whole groups.

    Its weight has an axis of all inputs, and none of all outputs: an output is of the node of its
    group's first input.
    """
    inputs = _tie_whole_groups(call, channels, inputs, groups)
    if inputs is None:
        return None
    call.nodes.mark_output(inputs)
    return np.repeat(inputs.reshape(groups, -1)[:, 0], count // groups)


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
    if left.dim() == 2:  # of a batch of matrices both sides are activations, as in attention
        key = LayerKey(
            'linear', (), (), (), (), 1, None, left.shape[row], (), str(left.dtype).split('.')[-1]
        )
        call.record_layer(
            key,
            (a_axes.get(column), left.shape[column], 1),
            (b_axes.get(column), right.shape[column], 1),
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
    # mmengine's counts: 1 operation a value, 4 with statistics of the batch, 1 more for the scale.
    per_value = (4 if batch_statistics else 1) + (others[0] is not None)
    call.count_flops(per_value * x.numel() // x.shape[1], (channels, x.shape[1]))
    return [make_label(dict(label_axes(label)), affine)]


def _note_following_norm(
    call: Call, label: ChannelLabel | None, affine: Sequence[Tensor | None]
) -> None:
    """Note the scale and shift of a normalisation that follows a layer, for TaylorImportance."""
    vectors = [label_axes(call.label_of(t)).get(0) for t in affine if isinstance(t, Tensor)]
    if label is not None and label.producer and vectors and all(v is not None for v in vectors):
        names = call.nodes.following_norms.setdefault(label.producer, [])
        names += [name for name in map(call.nodes.owner, vectors) if name not in names]


@rule('native_group_norm')
def group_norm(call: Call) -> list[ChannelLabel | None]:
    """Remove whole groups, and ``num_groups`` with them, since each is normalised on its own."""
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
    per_value = 4 + (weight is not None)  # as for batch statistics
    call.count_flops(per_value * x.numel() // x.shape[1], (channels, x.shape[1]))
    axes = {a: v for a, v in label_axes(label).items() if a != 1 or channels is not None}
    return [make_label(axes, affine)]


@rule('native_layer_norm')
def layer_norm(call: Call) -> list[ChannelLabel | None]:
    """Freeze the axes that are normalised over: fewer entries have another mean."""
    x, shape, weight, bias = call.args[:4]
    label = call.label_of(x)
    first = x.dim() - len(shape)
    call.freeze(label, range(first, x.dim()), 'a LayerNorm')
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor):
            call.freeze(call.label_of(tensor), None, 'a LayerNorm')
    call.count_flops((4 + (weight is not None)) * x.numel())
    return [make_label({a: v for a, v in label_axes(label).items() if a < first}, False)]
