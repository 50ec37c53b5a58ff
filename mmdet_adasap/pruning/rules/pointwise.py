# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Operations on each entry by itself."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..channel_ids import ChannelLabel
from .call import Call, is_fresh, is_zero, label_axes, make_label, rule

POINTWISE_WITHOUT_TAG = (
    'leaky_relu',
    'leaky_relu_',
    'hardtanh',
    'hardtanh_',
    'hardswish',
    'hardswish_',
    'hardsigmoid',
    'hardsigmoid_',
    'softplus',
    'elu_',
    '_prelu_kernel',
    '_to_copy',
    'dropout',
    'masked_fill_',
    'fill_',
    'zero_',
    'floor_divide',
    'lift_fresh',
    'detach',
    'detach_',
    'alias',
)


def is_pointwise(func: object) -> bool:
    """By PyTorch's own mark; ``equal`` has it, too, and gives one bool."""
    return torch.Tag.pointwise in func.tags and torch.Tag.data_dependent_output not in func.tags


@rule(*POINTWISE_WITHOUT_TAG)
def pointwise(call: Call) -> ChannelLabel | None:
    """Broadcast operands; the result shrinks along an axis if every operand does or is 1 wide."""
    tensors = [t for t in (*call.args, *call.kwargs.values()) if isinstance(t, Tensor)]
    rank = call.out.dim()
    axes: dict[int, np.ndarray] = {}
    for axis in range(rank):
        size, vectors, fixed = call.out.shape[axis], [], False
        for tensor in tensors:
            own = axis - rank + tensor.dim()
            if own < 0 or tensor.shape[own] == 1:
                continue
            vector = label_axes(call.label_of(tensor)).get(own)
            fixed |= vector is None
            vectors += [] if vector is None else [vector]
        if not vectors or size == 1:
            continue
        for vector in vectors[1:]:
            call.tie(vectors[0], vector)
        if fixed:
            call.tie(vectors[0], None)
        else:
            axes[axis] = vectors[0]
    return make_label(axes, all(_zero_stays_zero(call, axis - rank) for axis in axes))


class _Entry(NamedTuple):
    """One entry of a tensor operand, where a channel is masked."""

    zero: bool
    dtype: torch.dtype
    device: torch.device


def _zero_stays_zero(call: Call, axis: int) -> bool:
    """Whether a result is 0 on entries that are masked along an axis, counted from the last.

    An operand is 0 there if its label says so; any other may be anything.
    """

    def entry(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        label = call.label_of(value)
        zero = is_zero(label) and axis + value.dim() in label.axes
        return _Entry(zero, value.dtype, value.device)

    args = tuple(entry(v) for v in call.args)
    kwargs = tuple((k, entry(v)) for k, v in call.kwargs.items() if k != 'memory_format')
    if not any(isinstance(v, _Entry) and v.zero for v in (*args, *dict(kwargs).values())):
        return False  # no number of samples shows what becomes of anything
    try:
        hash((args, kwargs))
    except TypeError:  # an argument is a list
        return _gives_zero.__wrapped__(call.func, args, kwargs)
    return _gives_zero(call.func, args, kwargs)


@functools.cache
def _gives_zero(func: Callable, args: tuple, kwargs: tuple) -> bool:
    """Try an operation itself; what may be anything is one number after the other."""

    def value(of: object, number: float, place: int) -> object:
        if not isinstance(of, _Entry):
            return of
        if of.zero or (number < 0 and not of.dtype.is_signed):
            number = 0
        # Operands that may be anything are not all the same, or their difference were 0.
        return torch.full((), number * (1 + 0.4 * place), dtype=of.dtype, device=of.device)

    for number in (0, 3, -3, 0.3, -0.3, 1000):
        operands = [value(v, number, i) for i, v in enumerate(args)]
        named = {k: value(v, number, len(args) + i) for i, (k, v) in enumerate(kwargs)}
        try:
            result = func(*operands, **named)
        except Exception:  # it wants a shape
            return False
        # 0 / 0 is no number with the masked model either.
        if not ((result == 0) | result.isnan()).all():
            return False
    return True


@rule('copy_')
def copy_into(call: Call) -> ChannelLabel | None:
    target, source = call.args[:2]
    old, new = call.label_of(target), call.label_of(source)
    base = target if target._base is None else target._base
    new_target = old is None or is_fresh(old)
    reshaped = new_target and base.shape != target.shape  # base would stay without a label
    if reshaped or target.numel() * target.element_size() != target.untyped_storage().nbytes():
        call.freeze(old, None, 'write into a part of a tensor')
        call.freeze(new, None, 'write into a part of a tensor')
        return None
    if new_target and source.shape == target.shape:
        return new
    return pointwise(call)


@rule('zeros_like', 'ones_like', 'empty_like', 'full_like', 'rand_like', 'randn_like')
def like(call: Call) -> ChannelLabel | None:
    """A tensor that shrinks with its pattern."""
    axes = dict(label_axes(call.label_of(call.args[0])))
    return make_label(axes, call.operation == 'zeros_like')


@rule('bernoulli_', 'bernoulli', 'uniform_', 'normal_')
def drawn(call: Call) -> ChannelLabel | None:
    """Chance in the shape of a tensor: the mask of a dropout."""
    return make_label(dict(label_axes(call.label_of(call.args[0]))), False)


@rule('native_dropout')
def dropout(call: Call) -> list[ChannelLabel | None]:
    label = call.label_of(call.args[0])
    return [
        make_label(dict(label_axes(label)), is_zero(label)),
        make_label(dict(label_axes(label)), False),
    ]


@rule('zeros', 'ones', 'full', 'empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty')
def fresh(call: Call) -> ChannelLabel:
    """A tensor of a size of its own; it takes the label of what is written into it."""
    return ChannelLabel({}, call.operation in ('zeros', 'new_zeros'))
