# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model for what it does rather than what comes out: products without their arithmetic.

As long as no operation looks at them, a model does the same with zeros as with the true results,
in a fraction of the time.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ..errors import NeedsValuesError

VALUES_MATTER = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}

SHAPE_ALONE = {
    f'aten::{name}'
    for name in (
        *('new_empty', 'new_zeros', 'new_ones', 'new_full', 'new_empty_strided'),
        *('empty_like', 'zeros_like', 'ones_like', 'full_like', 'rand_like', 'randn_like'),
    )
}
"""Operations that read no number of the tensor they are given."""


class ShapeOnlyExecutor:
    """Executes operations, but gives zeros for convolutions and products of matrices.

    Attributes:
        stopped (bool): Whether :class:`NeedsValuesError` was raised; a model may have caught it.
    """

    def __init__(self) -> None:
        self.stopped = False
        # Storages of zeros that stand for results, and of all that was made of them.
        self._made_up: set[int] = set()

    def execute(
        self,
        func: Callable,
        name: str,
        args: tuple,
        kwargs: dict,
        inputs: Sequence[Tensor],
        followed: bool,
        known: bool,
        is_mutable: bool,
    ) -> object:
        """Run one operation.

        Args:
            func (Callable): The operator overload, or the function of a compiled extension.
            name (str): Its name in the schema, or that of the function.
            args (tuple): Its positional arguments.
            kwargs (dict): Its keyword arguments.
            inputs (Sequence[Tensor]): All tensors among these.
            followed (bool): Whether channels of the model reach it; what is made of constants
                alone is computed.
            known (bool): Whether there is a rule for it.
            is_mutable (bool): Whether it may write into its arguments.

        Returns:
            object: What it returned, or zeros in its place.

        Raises:
            NeedsValuesError: If it looks at numbers that were not computed.
        """
        read = inputs if name not in SHAPE_ALONE else ()
        made_up = any(_storage(t) in self._made_up for t in read)
        if made_up and _looks_at_values(func, name, args, known):
            self._stop()
        skip = (followed or made_up) and 'out' not in kwargs
        shape = product_shape(name, args) if skip else None
        if shape is None:
            out = func(*args, **kwargs)
        else:
            out, made_up = _zeros(shape, args[0]), True
        outputs = out if isinstance(out, list | tuple) else [out]
        touched = {_storage(t) for t in outputs if isinstance(t, Tensor)}
        if made_up:
            self._made_up |= touched | ({_storage(t) for t in inputs} if is_mutable else set())
            self._made_up.discard(0)  # of tensors without entries
        else:
            self._made_up -= touched  # memory that is used anew
        return out

    def check(self, tensors: Iterable[Tensor]) -> None:
        """Refuse that numbers which were not computed leave for Python.

        Raises:
            NeedsValuesError: If one of the tensors was not computed.
        """
        if any(_storage(t) in self._made_up for t in tensors):
            self._stop()

    def _stop(self) -> None:
        self.stopped = True
        raise NeedsValuesError


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if has_storage(tensor) else 0


def has_storage(tensor: Tensor) -> bool:
    """Whether a tensor is a plain one: not sparse, nested, or in a format of a backend."""
    return tensor.layout is torch.strided and not tensor.is_nested


def _zeros(shape: list[int], like: Tensor) -> Tensor:
    zeros = like.new_zeros(shape)
    last = torch.channels_last
    if like.dim() == 4 and like.is_contiguous(memory_format=last) and not like.is_contiguous():
        return zeros.to(memory_format=last)
    return zeros


def _looks_at_values(func: Callable, name: str, args: tuple, known: bool) -> bool:
    """Whether the shape of a result, or a number given to Python, may depend on values."""
    if name == 'aten::index':
        return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1])
    if not name.startswith('aten::'):
        return not known
    return not VALUES_MATTER.isdisjoint(func.tags)


def product_shape(name: str, args: tuple) -> list[int] | None:
    """The shape of a convolution's or matrix product's result.

    None for other operations, and where the operands do not fit: the operation itself says so.
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
    if x.dim() != weight.dim() or x.shape[1] != weight.shape[not transposed] * (
        1 if transposed else groups
    ):
        return None
    sizes = []
    for axis in range(x.dim() - 2):
        s, p, d, more = (
            values[axis if len(values) > 1 else 0]
            for values in (stride, padding, dilation, output_padding)
        )
        size, reach = x.shape[axis + 2], d * (weight.shape[axis + 2] - 1)
        if transposed:
            sizes.append((size - 1) * s - 2 * p + reach + more + 1)
        else:
            sizes.append((size + 2 * p - reach - 1) // s + 1)
    if min(sizes) < 1:
        return None
    return [x.shape[0], weight.shape[1] * groups if transposed else weight.shape[0], *sizes]
