# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Operations that compute each entry on its own."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..channel_ids import ChannelLabel
from .call import Call, is_fresh, is_zero, label_axes, make_label, rule

POINTWISE_NAMES = frozenset(
    (
        # Without torch.Tag.pointwise in PyTorch 2.1, and with it in 2.11. Some of the releases
        # between them tag a part of these.
        *('celu', 'elu', 'selu', 'silu', 'mish', 'relu6', 'rrelu', 'softplus', 'threshold'),
        *('hardshrink', 'hardsigmoid', 'hardtanh', 'softshrink'),
        *('isfinite', 'isinf', 'ldexp', 'rad2deg'),
        # Without it in 2.11, too.
        *('leaky_relu', 'hardswish', '_prelu_kernel', 'rrelu_with_noise', 'dropout'),
        *('fill', 'zero', 'floor_divide'),
        *('_to_copy', 'lift_fresh', 'detach', 'alias'),
    )
)
"""Operators of ``aten`` that are pointwise without the tag; their in-place forms end in ``_``."""

POINTWISE_ARGUMENT = {'max': 'other', 'min': 'other', 'where': 'self'}
"""Names that other forms have as well, and an argument that the pointwise ones alone have: ``max``
also reduces, and ``where`` of a condition returns places."""


@functools.cache
def is_pointwise(func: Callable) -> bool:
    """Return whether an operation computes each entry on its own, by its tag or its name.

    The tag of one form counts for all: PyTorch tags ``mish``, but neither ``mish_`` nor
    ``mish.out``. ``equal`` has the tag, too, but returns a single bool.

    Args:
        func (Callable): The operator overload.
    """
    namespace, _, name = func._schema.name.partition('::')
    functional = name.rstrip('_')
    if namespace == 'aten' and functional in POINTWISE_NAMES:
        return True
    needed = POINTWISE_ARGUMENT.get(functional)
    if needed and needed not in [argument.name for argument in func._schema.arguments]:
        return False
    operators = [getattr(getattr(torch.ops, namespace), n, None) for n in {name, functional}]
    tags = {
        tag
        for operator in operators
        if operator is not None
        for overload in operator.overloads()
        for tag in getattr(operator, overload).tags
    }
    return torch.Tag.pointwise in tags and torch.Tag.data_dependent_output not in tags


def pointwise(call: Call) -> ChannelLabel | None:
    """Tie broadcast operands.

    The result shrinks along an axis if every operand does or has length 1 there.
    """
    tensors = [t for t in (*call.args, *call.kwargs.values()) if isinstance(t, Tensor)]
    rank = call.out.dim()
    axes: dict[int, np.ndarray] = {}
    for axis in range(rank):
        size, vectors, fixed = call.out.shape[axis], [], False
        for tensor in tensors:
            own = axis - rank + tensor.dim()  # broadcasting aligns the last axes
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
    """Return whether a result is 0 where a channel is masked.

    An operand is 0 there if its label says so; any other may have any value.

    Args:
        call (Call): A pointwise operation.
        axis (int): Axis of the channels, counted from the last: -1 is the last one.
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
        return False  # samples cannot prove that any value becomes 0
    try:
        hash((args, kwargs))
    except TypeError:  # an argument is a list
        return _gives_zero.__wrapped__(call.func, args, kwargs)
    return _gives_zero(call.func, args, kwargs)


@functools.cache
def _gives_zero(func: Callable, args: tuple, kwargs: tuple) -> bool:
    """Run an operation on zeros and sample values, and return whether the result is always 0.

    So a new activation needs no rule of its own: ReLU of 0 is 0, a sigmoid of 0 is not.
    """

    def value(of: object, number: float, place: int) -> object:
        if not isinstance(of, _Entry):
            return of
        if of.zero or (number < 0 and not of.dtype.is_signed):
            number = 0
        # Different values for different operands: the difference of equal ones would be 0. The
        # factor 0.4 is arbitrary.
        return torch.full((), number * (1 + 0.4 * place), dtype=of.dtype, device=of.device)

    # Both signs, inside and outside of the ranges that activations clip to (1, 3, 6); 1000 for
    # those that compare with a threshold.
    for number in (0, 3, -3, 0.3, -0.3, 1000):
        operands = [value(v, number, i) for i, v in enumerate(args)]
        named = {k: value(v, number, len(args) + i) for i, (k, v) in enumerate(kwargs)}
        try:
            result = func(*operands, **named)
        except Exception:  # it needs more than a 0-dim tensor
            return False
        # NaN from 0 / 0 is NaN in the masked model as well; verify_cut compares the two.
        if not ((result == 0) | result.isnan()).all():
            return False
    return True


@rule('copy_')
def copy_into(call: Call) -> ChannelLabel | None:
    target, source = call.args[:2]
    old, new = call.label_of(target), call.label_of(source)
    base = target if target._base is None else target._base
    new_target = old is None or is_fresh(old)  # nothing of the model is in it yet
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
    """Create a tensor that shrinks with its pattern."""
    axes = dict(label_axes(call.label_of(call.args[0])))
    return make_label(axes, call.operation == 'zeros_like')


@rule('bernoulli_', 'bernoulli', 'uniform_', 'normal_')
def random(call: Call) -> ChannelLabel | None:
    """Draw random numbers in the shape of a tensor, as the mask of a dropout."""
    return make_label(dict(label_axes(call.label_of(call.args[0]))), False)


@rule('native_dropout')
def dropout(call: Call) -> list[ChannelLabel | None]:
    label = call.label_of(call.args[0])
    return [
        make_label(dict(label_axes(label)), is_zero(label)),
        make_label(dict(label_axes(label)), False),
    ]


@rule('log_sigmoid_forward')
def log_sigmoid(call: Call) -> list[ChannelLabel | None]:
    """Pass the channels on; the second result is for a backward pass."""
    label = call.label_of(call.args[0])
    if call.kwargs:  # written into given tensors, which may be parts of others
        for tensor in (call.args[0], *call.kwargs.values()):
            call.freeze(call.label_of(tensor))
        return []
    return [make_label(dict(label_axes(label)), False)]


@rule('zeros', 'ones', 'full', 'empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty')
def fresh(call: Call) -> ChannelLabel:
    """Create a tensor of given size; it takes the label of what is written into it later."""
    return ChannelLabel({}, call.operation in ('zeros', 'new_zeros'))
