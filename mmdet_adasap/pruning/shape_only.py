# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model without the arithmetic of its convolutions and matrix products.

A trace needs to know which operations a model runs, on which shapes. As long as no operation
depends on values, that is the same with zeros in place of the true results, in a fraction of the
time. Unlike on the meta device, everything else is computed, so models may read constants.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..errors import NeedsValuesError

# PyTorch's own marks of operations whose result depends on more than shapes: item(), nonzero().
NEED_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

NEED_SHAPE_ONLY = {
    f'aten::{name}'
    for name in (
        *('new_empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty_strided'),
        *('empty_like', 'zeros_like', 'ones_like', 'full_like', 'rand_like', 'randn_like'),
    )
}
"""Operations that read the shape of the tensor they are given, and none of its values."""


class ShapeOnlyExecutor:
    """Executes operations, but gives zeros for convolutions and products of matrices.

    Attributes:
        stopped (bool): Whether :class:`NeedsValuesError` was raised; a model may have caught it.
    """

    def __init__(self) -> None:
        self.stopped = False
        # Data pointers of zeros in place of results, and of all that was computed from them.
        self._placeholders: set[int] = set()

    def execute(
        self,
        func: Callable,
        name: str,
        args: tuple,
        kwargs: dict,
        inputs: Sequence[Tensor],
        has_label: bool,
        has_rule: bool,
        is_mutable: bool,
    ) -> object:
        """Run one operation.

        Args:
            func (Callable): The operator overload, or the function of a compiled extension.
            name (str): Its name in the schema, or that of the function.
            args (tuple): Its positional arguments.
            kwargs (dict): Its keyword arguments.
            inputs (Sequence[Tensor]): All tensors among these.
            has_label (bool): Whether channels of the model reach it; what is computed from
                constants alone (anchors, grids) keeps its arithmetic.
            has_rule (bool): Whether there is a rule for it.
            is_mutable (bool): Whether it may write into its arguments.

        Returns:
            object: What it returned, or zeros in its place.

        Raises:
            NeedsValuesError: If it depends on values that were not computed.
        """
        read = inputs if name not in NEED_SHAPE_ONLY else ()
        memory = {_storage(t) for t in read}
        # Tensor.set_ takes the memory itself.
        memory |= {a.data_ptr() for a in args if isinstance(a, torch.UntypedStorage)}
        is_placeholder = not memory.isdisjoint(self._placeholders)
        if is_placeholder and _needs_values(func, name, args, has_rule):
            self._stop()
        skip = (has_label or is_placeholder) and 'out' not in kwargs
        shape = product_shape(name, args) if skip else None
        if shape is None:
            out = func(*args, **kwargs)
        else:
            out, is_placeholder = _zeros(shape, args[0]), True
        outputs = out if isinstance(out, list | tuple) else [out]
        storages = {_storage(t) for t in outputs if isinstance(t, Tensor)}
        if is_placeholder:
            self._placeholders |= storages | (
                {_storage(t) for t in inputs} if is_mutable else set()
            )
            self._placeholders.discard(0)  # the pointer of all tensors without entries
        else:
            # The allocator gives memory of a freed placeholder to new tensors.
            self._placeholders -= storages
        return out

    def check(self, tensors: Iterable[Tensor]) -> None:
        """Raise NeedsValuesError if a tensor that leaves for Python was not computed.

        Args:
            tensors (Iterable[Tensor]): What numpy() or tolist() was called on.

        Raises:
            NeedsValuesError: If one of them was not computed.
        """
        if any(_storage(t) in self._placeholders for t in tensors):
            self._stop()

    def _stop(self) -> None:
        self.stopped = True
        raise NeedsValuesError


def _storage(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, shared with its views; 0 if there is none."""
    return tensor.untyped_storage().data_ptr() if has_storage(tensor) else 0


def has_storage(tensor: Tensor) -> bool:
    """Return whether a tensor is dense: not sparse, nested, or in a format of a backend."""
    return tensor.layout is torch.strided and not tensor.is_nested


def _zeros(shape: list[int], like: Tensor) -> Tensor:
    """Return zeros in the memory format that the operation would have returned.

    A view() later in the model fails or not by the strides.
    """
    zeros = like.new_zeros(shape)
    last = torch.channels_last
    if like.dim() == 4 and like.is_contiguous(memory_format=last) and not like.is_contiguous():
        return zeros.to(memory_format=last)
    return zeros


def _needs_values(func: Callable, name: str, args: tuple, has_rule: bool) -> bool:
    """Return whether the shape of a result, or a number given to Python, may depend on values."""
    # An index of integers has a known shape, one of masks has as many entries as are True; the tag
    # of the operation does not tell them apart.
    if name == 'aten::index':
        return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    if not name.startswith('aten::'):  # custom operators rarely carry tags
        return not has_rule
    return not NEED_VALUES.isdisjoint(func.tags)


def product_shape(name: str, args: tuple) -> list[int] | None:
    """Return the shape of a convolution's or matrix product's result.

    Args:
        name (str): Name of the operation in its schema.
        args (tuple): Its positional arguments.

    Returns:
        list[int], optional: The shape; None for other operations, and where the operands do not
        fit, so that the operation runs and raises its own error.
    """
    if name == 'aten::convolution':
        return _convolution_shape(*args[:9])
    if name in ('aten::mm', 'aten::bmm', 'aten::addmm', 'aten::baddbmm'):
        left, right = args[1:3] if 'add' in name else args[:2]
        if left.dim() != right.dim() or left.shape[-1] != right.shape[-2]:
            return None
        return [*left.shape[:-1], right.shape[-1]]
    return None


def _convolution_shape(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> list[int] | None:
    """Return the shape of ``aten::convolution`` by the formulas of torch.nn.ConvNd's pages."""
    if x.dim() != weight.dim() or x.shape[1] != weight.shape[not transposed] * (
        1 if transposed else groups
    ):
        return None
    sizes = []
    for axis in range(x.dim() - 2):
        # One value may stand for all axes.
        s, p, d, extra = (
            values[axis if len(values) > 1 else 0]
            for values in (stride, padding, dilation, output_padding)
        )
        size, extent = x.shape[axis + 2], d * (weight.shape[axis + 2] - 1)
        if transposed:
            sizes.append((size - 1) * s - 2 * p + extent + extra + 1)
        else:
            sizes.append((size + 2 * p - extent - 1) // s + 1)
    if min(sizes) < 1:
        return None
    return [x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *sizes]
