# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The proof of a cut: the slim model gives what the masked one gives."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import EquivalenceError
from .masks import mask
from .model_state import ForwardFn, copy_model, eval_mode, output_tensors, tensors_in
from .slicing import channel_counts, cut
from .structure import Keep

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest output, in float32."""
INNER_TOLERANCE = 1e-4
"""The same for what operations return on the way, relative to its own norm."""


def raw_outputs(model: nn.Module, forward: ForwardFn) -> list[Tensor]:
    """Every tensor that the model returns, in eval mode and without gradients."""
    with eval_mode(model), _full_precision():
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


def verify_cut(
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
            :func:`~mmdet_adasap.pruning.slicing.channel_counts` finds.

    Returns:
        float: The relative difference found.

    Raises:
        EquivalenceError: If it is above :data:`TOLERANCE`, naming the first module that differs.
    """
    attrs = channel_counts(model, keep) if attrs is None else attrs
    # A copy each: what a model keeps from its first run must not serve the other.
    masked, slim = copy_model(model), copy_model(model)
    mask(masked, keep)
    cut(slim, keep, attrs)
    reference = _run(masked, forward, 'the model')
    found, where = _compare(_run(slim, forward, 'the cut model'), reference)
    if where is not None:
        found, where = _compare_in_double(slim, masked, forward) or (found, where)
    if where is not None:
        raise EquivalenceError(
            f'the cut model differs from the masked one by {found:.1e} of what '
            f'{where or "the model itself"} returns; its channels are not understood',
            where,
        )
    return found


class _Returned(NamedTuple):
    """A fingerprint of what an operation returned, and the module that was running."""

    module: str
    operation: str
    shape: torch.Size
    norm: float
    total: float


class _Observed(NamedTuple):
    """One run: the raw outputs, and what every operation returned."""

    outputs: list[Tensor]
    operations: list[_Returned]


class _Observer(TorchDispatchMode):
    """Takes the fingerprint of every tensor that an operation returns, in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, nn.Module]] = []
        self.operations: list[_Returned] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, module = self.running[-1] if self.running else ('', None)
        operation = func._schema.name
        if 'empty' in operation or 'resize' in operation:
            # Memory that nothing was written to holds anything, and no two runs the same.
            for tensor in tensors_in(out):
                tensor.zero_()
            return out
        if func.is_view or (module and module.training):  # in train mode chance plays a part
            return out
        for tensor in tensors_in(out):
            if tensor.is_floating_point():
                values = tensor.detach()
                total = values.sum(dtype=torch.float64).item()
                norm = values.norm().item()
                self.operations.append(_Returned(name, operation, tensor.shape, norm, total))
        return out


def _run(model: nn.Module, forward: ForwardFn, which: str) -> _Observed:
    """Run a model and look at what happens in it.

    Raises:
        EquivalenceError: If it does not run, naming the innermost module that was running.
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
        raise EquivalenceError(
            f'{which} does not run; it stops in {where or "its own code"} ({error})', where
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
    for ours, theirs in zip(slim.operations, masked.operations, strict=False):
        if ours[:2] != theirs[:2]:  # they go different ways, and the outputs tell
            break
        apart = _apart(ours, theirs)
        if apart > INNER_TOLERANCE:
            return apart, ours.module
    found = difference(slim.outputs, masked.outputs)
    return found, '' if found > TOLERANCE else None


def _apart(ours: _Returned, theirs: _Returned) -> float:
    """Relative difference of two fingerprints; 0 where they are not of one shape."""
    if ours.shape != theirs.shape:
        return 0.0
    finite = [math.isfinite(run.norm) and math.isfinite(run.total) for run in (ours, theirs)]
    if not all(finite):
        return float('inf') if any(finite) else 0.0
    norm, total = abs(ours.norm - theirs.norm), abs(ours.total - theirs.total)
    largest = max(norm, total / max(1.0, theirs.shape.numel() ** 0.5))
    return largest and largest / theirs.norm if theirs.norm else largest and float('inf')


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
        return _compare(*(_run(model, forward, 'it') for model in models))
    except EquivalenceError:
        return None


def _inputs_in_double(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """``forward`` brings its own input, in float32."""

    def double(value: object) -> object:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(double, args)), {key: double(value) for key, value in kwargs.items()}
