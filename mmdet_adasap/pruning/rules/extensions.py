# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Compiled operators of mmcv and torchvision. Those without a rule freeze what reaches them."""

from ..channel_ids import ChannelLabel
from .call import Call, extension_rule, is_zero, label_axes, make_label, rule
from .layers import convolve


@extension_rule('roi_align_forward')
def roi_features(call: Call) -> None:
    x, rois, output = call.args[:3]
    call.write(output, _pooled(call, x, rois))


@rule('torchvision::roi_align', 'torchvision::roi_pool')
def torchvision_roi_features(call: Call) -> ChannelLabel | list[ChannelLabel | None] | None:
    kept = _pooled(call, *call.args[:2])
    return [kept, None] if isinstance(call.out, tuple) else kept


def _pooled(call: Call, x: object, rois: object) -> ChannelLabel | None:
    """Return the label of features that are pooled channel by channel, ``[rois, C, h, w]``."""
    label = call.label_of(x)
    call.freeze(call.label_of(rois), None, 'regions')
    call.freeze(label, [a for a in label_axes(label) if a != 1], 'spatial axis')
    return make_label({a: v for a, v in label_axes(label).items() if a == 1}, is_zero(label))


@extension_rule('deform_conv_forward')
def deform_conv(call: Call) -> None:
    x, weight, offset, output = call.args[:4]
    _deformed(call, x, weight, None, [offset], output, call.kwargs)


@extension_rule('modulated_deform_conv_forward')
def modulated_deform_conv(call: Call) -> None:
    x, weight, bias, _, offset, mask, output = call.args[:7]
    bias = bias if call.kwargs['with_bias'] else None
    _deformed(call, x, weight, bias, [offset, mask], output, call.kwargs)


def _deformed(
    call: Call,
    x: object,
    weight: object,
    bias: object,
    positions: list,
    output: object,
    options: dict,
) -> None:
    """Label the output of a deformable convolution like that of any other one."""
    # Offsets have two channels for each place of the kernel; without one, another is sampled.
    for tensor in positions:
        call.freeze(call.label_of(tensor), None, 'sampling positions')
    # The two operators of mmcv spell the option differently.
    if options.get('deformable_group', options.get('deformable_groups', 1)) > 1:
        call.freeze(call.label_of(x), None, 'several groups of sampling positions')
    call.write(output, convolve(call, x, weight, bias, output, options['group']))
