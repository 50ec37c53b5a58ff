# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What each tensor operation does to the channels that reach it.

A rule takes the :class:`Call` and returns the :class:`Label` of the result, or None where
nothing of the result can shrink. Labels that a rule does not use up are frozen by it: what is
not understood is never cut. An operation without a rule freezes everything that reaches it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .nodes import FROZEN, Label, NodeTable

aten = torch.ops.aten
Rule = Callable[['Call'], 'Label | list[Label | None] | None']
RULES: dict[object, Rule] = {}


@dataclass
class Call:
    """One operation as it was met while the model ran.

    Args:
        func: The operator overload.
        args (tuple): Its positional arguments.
        kwargs (dict): Its keyword arguments.
        out: What it returned.
        nodes (NodeTable): Where ties and freezes go.
        label_of (Callable): Gives the label of a tensor, or None.
        where (str): Name of the module that was running.
        count_flops (Callable): Takes ``(coefficient, node vectors)``, see ``cost.py``.
    """

    func: object
    args: tuple
    kwargs: dict
    out: object
    nodes: NodeTable
    label_of: Callable[[Tensor], Label | None]
    where: str
    count_flops: Callable[..., None]

    def arg(self, position: int, default: object = None) -> object:
        return self.args[position] if len(self.args) > position else default

    def freeze(
        self, label: Label | None, axes: Iterable[int] | None = None, why: str = ''
    ) -> None:
        """Freeze all axes of a label, or those given."""
        if label is None:
            return
        for axis in list(label.axes) if axes is None else axes:
            if axis in label.axes:
                self.nodes.freeze(label.axes[axis], f'{why or self.func} in {self.where}')

    def tie(self, left: np.ndarray | None, right: np.ndarray | None) -> None:
        """Tie two node vectors; None stands for one that cannot shrink."""
        if left is None and right is None:
            return
        if left is None or right is None:
            kept = right if left is None else left
            self.nodes.freeze(kept, f'{self.func} with a fixed operand in {self.where}')
        else:
            self.nodes.tie(left, right)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for all overloads of the named ``aten`` operations that this torch has."""

    def register(function: Rule) -> Rule:
        for name in names:
            packet = getattr(aten, name, None)
            for overload in packet.overloads() if packet is not None else ():
                RULES[getattr(packet, overload)] = function
        return function

    return register


def axes_of(label: Label | None) -> dict[int, np.ndarray]:
    return {} if label is None else label.axes


def made(axes: dict[int, np.ndarray], zero: bool) -> Label | None:
    return Label(axes, zero) if axes else None


# Layers: where channels are made and used up


@rule('convolution', '_convolution', 'convolution_overrideable')
def convolution(call: Call) -> Label | None:
    x, weight, bias = call.args[:3]
    transposed, groups = call.args[6], call.args[8]
    x_label, w_label = call.label_of(x), call.label_of(weight)
    x_axes, w_axes = axes_of(x_label), axes_of(w_label)
    call.freeze(x_label, [a for a in x_axes if a != 1], 'spatial or batch axis')
    for axis in w_axes.keys() - {0, 1}:
        call.nodes.tie(w_axes[axis], np.int64(FROZEN))  # a kernel never shrinks: no news
    inputs, outputs = (0, 1) if transposed else (1, 0)
    out_channels = call.out.shape[1]
    kernel = weight[0, 0].numel()
    places = (x if transposed else call.out)[0, 0].numel() * x.shape[0]
    x_zero = x_label is not None and x_label.zero
    zero = w_label is not None and w_label.zero

    if groups == 1:
        call.tie(x_axes.get(1), w_axes.get(inputs))
        if not (x_zero or zero):
            call.freeze(x_label, [1], 'product over channels that are not 0 when masked')
        made_by, used_by = w_axes.get(outputs), w_axes.get(inputs)
        call.count_flops(places * kernel, (made_by, out_channels), (used_by, weight.shape[inputs]))
    elif groups == x.shape[1] and not transposed:
        # Depthwise: every input channel makes `multiplier` channels of its own.
        made_by, multiplier = w_axes.get(0), out_channels // groups
        zero |= x_zero
        if made_by is None or x_axes.get(1) is None:
            call.tie(x_axes.get(1), made_by)
        else:
            call.tie(np.repeat(x_axes[1], multiplier), made_by)
        call.count_flops(places * kernel, (made_by, out_channels))
    else:
        call.freeze(x_label, [1], 'grouped convolution')
        call.freeze(w_label, None, 'grouped convolution')
        made_by = None
        call.count_flops(places * weight.numel())

    if bias is not None:
        b_label = call.label_of(bias)
        call.tie(axes_of(b_label).get(0), made_by)
        zero &= b_label is not None and b_label.zero
    if made_by is None:
        return None
    call.nodes.mark_output(made_by)
    return Label({1: made_by}, zero)


@rule('mm', 'addmm', 'bmm')
def matrix_product(call: Call) -> Label | None:
    *added, left, right = call.args[:3] if call.func is aten.addmm.default else call.args[:2]
    row, column = left.dim() - 2, left.dim() - 1
    a, b = call.label_of(left), call.label_of(right)
    a_axes, b_axes = axes_of(a), axes_of(b)
    if left.dim() == 3:
        call.tie(a_axes.get(0), b_axes.get(0))
    call.tie(a_axes.get(column), b_axes.get(row))
    if column in a_axes and not (a.zero or (b is not None and b.zero)):
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
        bias_axes = {axis + offset: v for axis, v in axes_of(label).items()}
        zero &= label is not None and label.zero and axes.keys() <= bias_axes.keys()
        for axis in set(axes) | set(bias_axes):
            if axis - offset >= 0 and bias.shape[axis - offset] > 1:
                call.tie(axes.get(axis), bias_axes.get(axis))
    return made(axes, zero)


@rule(
    'native_batch_norm',
    '_native_batch_norm_legit',
    '_native_batch_norm_legit_no_training',
    '_batch_norm_with_update',
    '_batch_norm_no_update',
    'cudnn_batch_norm',
    'miopen_batch_norm',
)
def batch_norm(call: Call) -> list[Label | None]:
    x, *others = call.args[:5]
    label = call.label_of(x)
    channels = axes_of(label).get(1)
    affine = others[0] is not None and others[1] is not None
    for tensor in others:
        if isinstance(tensor, Tensor):
            call.tie(axes_of(call.label_of(tensor)).get(0), channels)
    batch_statistics = any(flag is True for flag in call.args[3:6])
    per_value = (4 if batch_statistics else 1) + (others[0] is not None)
    call.count_flops(per_value * x.numel() // x.shape[1], (channels, x.shape[1]))
    return [made(dict(axes_of(label)), affine)]


@rule('native_group_norm', 'native_layer_norm')
def other_norm(call: Call) -> None:
    """Left whole; the rule is here for its multiply-accumulates."""
    is_group_norm = _name(call.func) == 'native_group_norm'
    weight, bias = call.args[1:3] if is_group_norm else call.args[2:4]
    for tensor in (call.args[0], weight, bias):
        if tensor is not None:
            call.freeze(call.label_of(tensor), None, _name(call.func))
    call.count_flops((4 + (weight is not None)) * call.args[0].numel())


# Element-wise operations

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
    'lift_fresh',
    'detach',
    'detach_',
    'alias',
)


def is_pointwise(func: object) -> bool:
    return torch.Tag.pointwise in func.tags


@rule(*POINTWISE_WITHOUT_TAG)
def pointwise(call: Call) -> Label | None:
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
            vector = axes_of(call.label_of(tensor)).get(own)
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
    return made(axes, all(_zero_stays_zero(call, axis - rank) for axis in axes))


def _zero_stays_zero(call: Call, axis: int) -> bool:
    """Try the operation itself on an entry that is masked along an axis, counted from the last.

    An operand is 0 there if its label says so; any other may be anything: try two numbers.
    """

    def masked(value: object, number: int) -> object:
        if not isinstance(value, Tensor):
            return value
        label = call.label_of(value)
        is_zero = label is not None and label.zero and axis + value.dim() in label.axes
        if is_zero or (number < 0 and not value.dtype.is_signed):
            number = 0
        return torch.full((), number, dtype=value.dtype, device=value.device)

    for number in (3, -3):
        args = [masked(v, number) for v in call.args]
        kwargs = {k: masked(v, number) for k, v in call.kwargs.items() if k != 'memory_format'}
        if not (call.func(*args, **kwargs) == 0).all():
            return False
    return True


@rule('copy_')
def copy_into(call: Call) -> Label | None:
    target, source = call.args[:2]
    old, new = call.label_of(target), call.label_of(source)
    base = target if target._base is None else target._base
    reshaped = old is None and base.shape != target.shape  # base would stay without a label
    if reshaped or target.numel() * target.element_size() != target.untyped_storage().nbytes():
        call.freeze(old, None, 'write into a part of a tensor')
        call.freeze(new, None, 'write into a part of a tensor')
        return None
    if old is None and source.shape == target.shape:
        return new
    return pointwise(call)


@rule('zeros_like', 'ones_like', 'empty_like', 'full_like', 'rand_like', 'randn_like', 'new_zeros')
def fresh(call: Call) -> None:
    """A tensor of its own: it takes nothing from its pattern but the size.

    The size itself would shrink with the pattern, so the pattern may not shrink.
    """
    call.freeze(call.label_of(call.args[0]), None)


# Spatial operations on [N, C, ...]


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
def spatial(call: Call) -> Label | None:
    label = call.label_of(call.args[0])
    out = call.out[0] if isinstance(call.out, tuple) else call.out
    channel = out.dim() - 3
    call.freeze(label, [a for a in axes_of(label) if a > channel], 'spatial axis')
    axes = {a: v for a, v in axes_of(label).items() if a <= channel}
    scale = {'upsample_nearest2d': 1, 'upsample_bilinear2d': 4}.get(_name(call.func), 0)
    call.count_flops(
        scale * out.numel() // out.shape[channel], (axes.get(channel), out.shape[channel])
    )
    kept = made(axes, label is not None and label.zero)
    return [kept, kept] if isinstance(call.out, tuple) else kept


@rule('_adaptive_avg_pool2d', 'adaptive_avg_pool2d')
def adaptive_average(call: Call) -> Label | None:
    x = call.args[0]
    channel = x.dim() - 3
    label = spatial(call)
    call.count_flops(
        x.numel() // x.shape[channel], (axes_of(label).get(channel), x.shape[channel])
    )
    return label


@rule('constant_pad_nd')
def pad(call: Call) -> Label | None:
    x, amounts = call.args[:2]
    label = call.label_of(x)
    padded = {x.dim() - 1 - i // 2 for i, amount in enumerate(amounts) if amount}
    call.freeze(label, padded, 'padding along channels')
    axes = {a: v for a, v in axes_of(label).items() if a not in padded}
    return made(axes, label is not None and label.zero and not call.arg(2, 0))


# Reductions


@rule('sum', 'linalg_vector_norm', 'norm')
def total(call: Call) -> Label | None:
    """Adding up over channels is harmless as long as a masked channel adds 0."""
    order = call.arg(1) if _name(call.func) != 'sum' else None
    return _reduce(call, harmless=not (isinstance(order, int | float) and order < 0))


@rule('mean', 'amax', 'amin', 'max', 'min', 'argmax', 'argmin', 'prod', 'var', 'std', 'any', 'all')
def reduce(call: Call) -> Label | None:
    return _reduce(call, harmless=False)


def _reduce(call: Call, harmless: bool) -> Label | list[Label | None] | None:
    x = call.args[0]
    label = call.label_of(x)
    out = call.out[0] if isinstance(call.out, tuple) else call.out
    position = 2 if _name(call.func) in ('linalg_vector_norm', 'norm') else 1
    dims = call.arg(position, call.kwargs.get('dim'))
    if isinstance(dims, int):
        dims = [dims]
    if not isinstance(dims, list | tuple) or not dims:
        dims = range(x.dim())
    dims = {d % x.dim() for d in dims}
    if not (harmless and label is not None and label.zero):
        call.freeze(label, dims, f'{_name(call.func)} over channels')
    axes, kept_dims = {}, out.dim() == x.dim()
    for axis, vector in axes_of(label).items():
        if axis not in dims:
            axes[axis if kept_dims else axis - sum(d < axis for d in dims)] = vector
    kept = made(axes, label is not None and label.zero)
    return [kept, kept] if isinstance(call.out, tuple) else kept


@rule('_softmax', '_log_softmax', 'sort', 'topk', 'cumsum')
def along_axis(call: Call) -> Label | list[Label | None] | None:
    label = call.label_of(call.args[0])
    position = 2 if _name(call.func) == 'topk' else 1
    axis = call.arg(position, call.kwargs.get('dim', -1)) % call.args[0].dim()
    call.freeze(label, [axis], f'{_name(call.func)} over channels')
    kept = made({a: v for a, v in axes_of(label).items() if a != axis}, False)
    return [kept, kept] if isinstance(call.out, tuple) else kept


# Shapes


@rule('view', '_unsafe_view', 'reshape', '_reshape_alias', '_reshape_copy')
def view(call: Call) -> Label | None:
    """Match runs of old and new axes that hold the same number of entries."""
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
            # Flatten: each channel becomes `inner` neighbours, `outer` times.
            (axis,) = labelled
            outer = int(np.prod([x.shape[a] for a in wide_old if a < axis], dtype=int))
            inner = int(np.prod([x.shape[a] for a in wide_old if a > axis], dtype=int))
            axes[wide_new[0]] = np.tile(np.repeat(label.axes[axis], inner), outer)
        elif len(wide_old) == 1:
            _split(call, label.axes[labelled[0]], wide_new, axes)
        else:
            call.freeze(label, labelled, 'view that mixes channels with other axes')
    return made(axes, label.zero)


def _runs(old: torch.Size, new: torch.Size) -> Iterable[tuple[list[int], list[int]]]:
    i = j = 0
    while i < len(old) or j < len(new):
        left, right, a, b = [], [], 1, 1
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
    """One channel axis becomes several: positions along the widest stay, the others are tied."""
    blocks = vector.reshape([call.out.shape[a] for a in new])
    widest = int(np.argmax(blocks.shape))
    blocks = np.moveaxis(blocks, widest, -1).reshape(-1, blocks.shape[widest])
    for block in blocks[1:]:
        call.tie(blocks[0], block)
    axes[new[widest]] = blocks[0]


@rule('permute', 'transpose', 't', 'numpy_T', 'swapaxes', 'movedim')
def permute(call: Call) -> Label | None:
    x, label = call.args[0], call.label_of(call.args[0])
    if label is None:
        return None
    order = list(range(x.dim()))
    if _name(call.func) == 'permute':
        order = [d % x.dim() for d in call.args[1]]
    elif _name(call.func) == 'transpose':
        a, b = (d % x.dim() for d in call.args[1:3])
        order[a], order[b] = order[b], order[a]
    else:
        order = order[::-1]
    return made({order.index(a): v for a, v in label.axes.items()}, label.zero)


@rule('unsqueeze')
def unsqueeze(call: Call) -> Label | None:
    label = call.label_of(call.args[0])
    axis = call.args[1] % call.out.dim()
    axes = {a + (a >= axis): v for a, v in axes_of(label).items()}
    return made(axes, label is not None and label.zero)


@rule('squeeze')
def squeeze(call: Call) -> Label | None:
    x, label = call.args[0], call.label_of(call.args[0])
    dims = call.arg(1, range(x.dim()))
    dims = [dims] if isinstance(dims, int) else dims
    gone = {d % x.dim() for d in dims if x.shape[d] == 1}
    if len(call.args) == 1:
        call.freeze(label, None, 'squeeze() without an axis, which would drop a last channel,')
    axes = {a - sum(d < a for d in gone): v for a, v in axes_of(label).items() if a not in gone}
    return made(axes, label is not None and label.zero)


@rule('expand')
def expand(call: Call) -> Label | None:
    x, label = call.args[0], call.label_of(call.args[0])
    offset = call.out.dim() - x.dim()
    axes = {a + offset: v for a, v in axes_of(label).items()}
    return made(axes, label is not None and label.zero)


@rule('slice', 'narrow')
def slice_(call: Call) -> Label | None:
    x, label = call.args[0], call.label_of(call.args[0])
    axis = call.arg(1, 0) % x.dim()
    if call.out.shape[axis] != x.shape[axis]:
        call.freeze(label, [axis], 'a slice of the channels')
    axes = {
        a: v
        for a, v in axes_of(label).items()
        if a != axis or call.out.shape[axis] == x.shape[axis]
    }
    return made(axes, label is not None and label.zero)


@rule('select', 'unbind')
def select(call: Call) -> Label | list[Label | None] | None:
    x, label = call.args[0], call.label_of(call.args[0])
    axis = call.arg(1, 0) % x.dim()
    call.freeze(label, [axis], 'one of the channels selected')
    kept = {a - (a > axis): v for a, v in axes_of(label).items() if a != axis}
    result = made(kept, label is not None and label.zero)
    return [result] * len(call.out) if isinstance(call.out, list | tuple) else result


@rule('split', 'split_with_sizes', 'chunk')
def split(call: Call) -> list[Label | None]:
    """Equal parts stay equal only if a position goes from all of them together."""
    x, label = call.args[0], call.label_of(call.args[0])
    axis = call.arg(2, call.kwargs.get('dim', 0)) % x.dim()
    if label is None:
        return [None] * len(call.out)
    vector = label.axes.get(axis)
    others = {a: v for a, v in label.axes.items() if a != axis}
    if vector is None:
        return [made(dict(others), label.zero) for _ in call.out]
    sizes = {part.shape[axis] for part in call.out}
    if len(sizes) > 1:
        call.freeze(label, [axis], 'a split into unequal parts')
        return [made(dict(others), label.zero) for _ in call.out]
    parts = vector.reshape(len(call.out), -1)
    for part in parts[1:]:
        call.tie(parts[0], part)
    return [Label({**others, axis: part}, label.zero) for part in parts]


@rule('cat', 'concatenate')
def cat(call: Call) -> Label | None:
    tensors = [t for t in call.args[0] if t.numel() or t.dim() > 1]
    labels = [call.label_of(t) for t in tensors]
    axis = call.arg(1, call.kwargs.get('dim', 0)) % call.out.dim()
    if all(label is None for label in labels):
        return None
    axes = {}
    if any(axis in axes_of(label) for label in labels):
        axes[axis] = np.concatenate(
            [
                axes_of(label).get(axis, np.full(t.shape[axis], FROZEN))
                for t, label in zip(tensors, labels, strict=True)
            ]
        )
    for other in {a for label in labels for a in axes_of(label)} - {axis}:
        vectors = [axes_of(label).get(other) for label in labels]
        first = next(v for v in vectors if v is not None)
        for vector in vectors:
            call.tie(first, vector)
        if all(v is not None for v in vectors):
            axes[other] = first
    return made(axes, all(label.zero for label in labels if label is not None))


def _name(func: object) -> str:
    return func.overloadpacket.__name__.rstrip('_')
