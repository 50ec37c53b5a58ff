# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The proof of a cut: the slim model gives what the masked one gives."""

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .masks import mask
from .structure import Keep
from .surgery import channel_counts, cut
from .tracing import ForwardFn, evaluating, output_tensors, tensors_in

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest output, in float32."""
INSIDE = 1e-4
"""The same for what operations return on the way, relative to its own norm."""


class WrongCut(RuntimeError):
    """Raised when a slim model does not give what the masked one gives.

    Attributes:
        module (str): Name of the first module that differs, '' for the model itself.
    """

    def __init__(self, message: str, module: str = '') -> None:
        super().__init__(message)
        self.module = module


def raw_outputs(model: nn.Module, forward: ForwardFn) -> list[Tensor]:
    """Every tensor that the model returns, in eval mode and without gradients."""
    with evaluating(model), _full_precision():
        return [tensor.detach().clone() for tensor in output_tensors(forward(model))]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keep a GPU from rounding the factors of products to TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def difference(slim: list[Tensor], masked: list[Tensor]) -> float:
    """Largest absolute difference over all outputs, relative to the largest masked output.

    ``inf`` where shapes differ or one has a value that is not a number.
    """
    if [t.shape for t in slim] != [t.shape for t in masked]:
        return float('inf')
    largest = apart = 0.0
    for a, b in zip(slim, masked, strict=True):
        a, b = a.double(), b.double()
        off = (a - b)[a != b].abs()  # without the infinities that both share
        if not off.isfinite().all():
            return float('inf')
        apart = max(apart, off.max().item()) if off.numel() else apart
        finite = b[b.isfinite()].abs()
        largest = max(largest, finite.max().item()) if finite.numel() else largest
    return apart / largest if largest else apart


def check_cut(
    model: nn.Module,
    keep: Keep,
    forward: ForwardFn,
    attrs: Mapping[str, Mapping[str, int]] | None = None,
) -> float:
    """Cut a copy of a model and compare it with a masked copy; the model stays as it is.

    Args:
        model (nn.Module): The dense model, masked or not.
        keep (dict): Tensor name to axis to kept indices.
        forward (Callable): Runs a model on a real input and returns its raw outputs.
        attrs (dict, optional): Module name to attribute to channel count. Defaults to what
            :func:`~mmdet_adasap.pruning.surgery.channel_counts` finds.

    Returns:
        float: The relative difference found.

    Raises:
        WrongCut: If it is above :data:`TOLERANCE`, naming the first module that differs.
    """
    attrs = channel_counts(model, keep) if attrs is None else attrs
    # One copy does for both, since a cut leaves nothing of what the mask has changed.
    slim = copy.deepcopy(model)
    mask(slim, keep)
    reference = _run(slim, forward)
    cut(slim, keep, attrs)
    found, where = _compare(_run(slim, forward), reference)
    if where is not None:
        masked = copy.deepcopy(model)
        mask(masked, keep)
        found, where = _compare_in_double(slim, masked, forward) or (found, where)
    if where is not None:
        raise WrongCut(
            f'the cut model differs from the masked one by {found:.1e} of the largest output, '
            f'first in {where or "its own code"}; its channels are not understood',
            where,
        )
    return found


class _Observed(NamedTuple):
    """One run: the raw outputs, and a fingerprint of what every operation returned."""

    outputs: list[Tensor]
    operations: list[tuple[str, torch.Size, float, float]]


class _Observer(TorchDispatchMode):
    """Takes the fingerprint of every tensor that an operation returns, in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, nn.Module]] = []
        self.operations: list[tuple[str, torch.Size, float, float]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, module = self.running[-1] if self.running else ('', None)
        # In train mode chance plays a part; memory that nothing was written to holds anything.
        if func.is_view or 'empty' in func._schema.name or (module and module.training):
            return out
        for tensor in tensors_in(out):
            if tensor.is_floating_point():
                values = tensor.detach()
                total = values.sum(dtype=torch.float64).item()
                self.operations.append((name, tensor.shape, values.norm().item(), total))
        return out


def _run(model: nn.Module, forward: ForwardFn) -> _Observed:
    """Run a model and look at what happens in it.

    Raises:
        WrongCut: If it does not run, naming the innermost module that was running.
    """
    observer, handles = _Observer(), []
    for name, module in model.named_modules():

        def enter(module: nn.Module, args: tuple, name: str = name) -> None:
            observer.running.append((name, module))

        def leave(module: nn.Module, args: tuple, output: object) -> None:
            observer.running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        with observer:
            outputs = raw_outputs(model, forward)
    except Exception as error:
        where = observer.running[-1][0] if observer.running else ''
        raise WrongCut(
            f'the cut model does not run; it stops in {where or "its own code"} ({error})', where
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return _Observed(outputs, observer.operations)


def _compare(slim: _Observed, masked: _Observed) -> tuple[float, str | None]:
    """How far the outputs are apart, and the first module that differs if any does.

    What operations return on the way is compared, too, where it has the same shape: an error
    there, as a softmax that is scaled by another number of channels, may be too small to see in
    the outputs of an untrained model.
    """
    found = difference(slim.outputs, masked.outputs)
    for (name, shape, *values), (_, other_shape, *others) in zip(
        slim.operations, masked.operations, strict=False
    ):
        if shape != other_shape:
            continue
        finite = [all(map(math.isfinite, run)) for run in (values, others)]
        if not any(finite):
            continue
        norm, total = others
        allowed = INSIDE * norm, INSIDE * norm * max(1.0, shape.numel() ** 0.5)
        apart = abs(values[0] - norm), abs(values[1] - total)
        if not (apart[0] <= allowed[0] and apart[1] <= allowed[1]):
            return found, name
    return found, '' if found > TOLERANCE else None


def _compare_in_double(
    slim: nn.Module, masked: nn.Module, forward: ForwardFn
) -> tuple[float, str | None] | None:
    """The same without float32's rounding; None if the models cannot run in float64.

    Both are converted in place.
    """
    models = slim.double(), masked.double()
    for module in (module for model in models for module in model.modules()):
        module.register_forward_pre_hook(_inputs_in_double, with_kwargs=True)
    try:
        return _compare(*(_run(model, forward) for model in models))
    except WrongCut:
        return None


def _inputs_in_double(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """``forward`` brings its own input, in float32."""

    def double(value: object) -> object:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(double, args)), {key: double(value) for key, value in kwargs.items()}
