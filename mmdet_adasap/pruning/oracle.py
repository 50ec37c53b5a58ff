# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The proof of a cut: the slim model gives what the masked one gives."""

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .masks import mask
from .structure import Keep
from .surgery import channel_counts, cut
from .tracing import ForwardFn, evaluating, output_tensors, tensors_in

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest output, in float32."""


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
    masked, slim = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, keep)
    cut(slim, keep, channel_counts(slim, keep) if attrs is None else attrs)
    reference = raw_outputs(masked, forward)
    try:
        found = difference(raw_outputs(slim, forward), reference)
    except Exception as error:
        where = _where_it_stops(slim, forward)
        raise WrongCut(
            f'the cut model does not run; it stops in {where or "its own code"} ({error})', where
        ) from error
    if found > TOLERANCE:
        found = min(found, _difference_in_double(slim, masked, forward))
    if found > TOLERANCE:
        where = _where_it_differs(slim, masked, forward)
        raise WrongCut(
            f'the cut model differs from the masked one by {found:.1e} of the largest output, '
            f'first in {where or "its own code"}; its channels are not understood',
            where,
        )
    return found


def _difference_in_double(slim: nn.Module, masked: nn.Module, forward: ForwardFn) -> float:
    """The difference without float32's rounding; ``inf`` if the model cannot run in float64."""
    models = copy.deepcopy(slim).double(), copy.deepcopy(masked).double()
    for module in (module for model in models for module in model.modules()):
        module.register_forward_pre_hook(_inputs_in_double, with_kwargs=True)
    try:
        return difference(*(raw_outputs(model, forward) for model in models))
    except Exception:
        return float('inf')


def _inputs_in_double(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """``forward`` brings its own input, in float32."""

    def double(value: object) -> object:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(map(double, args)), {key: double(value) for key, value in kwargs.items()}


def _record(model: nn.Module, forward: ForwardFn) -> tuple[list[tuple[str, float]], str | None]:
    """Run a model; what its modules return, in sum, and the module that it stopped in, if any."""
    sums, running, handles = [], [], []
    for name, module in model.named_modules():

        def enter(_, args: tuple, name: str = name) -> None:
            running.append(name)

        def leave(_, args: tuple, output: object, name: str = name) -> None:
            sums.append((name, sum(t.double().abs().sum().item() for t in tensors_in(output))))
            running.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        raw_outputs(model, forward)
    except Exception:  # what is still running tells where
        return sums, running[-1] if running else ''
    finally:
        for handle in handles:
            handle.remove()
    return sums, None


def _where_it_stops(slim: nn.Module, forward: ForwardFn) -> str:
    """Name of the innermost module that raises; '' for the model itself."""
    return _record(slim, forward)[1] or ''


def _where_it_differs(slim: nn.Module, masked: nn.Module, forward: ForwardFn) -> str:
    """Name of the first module whose outputs differ in sum; '' for the model itself."""
    for (name, a), (_, b) in zip(
        _record(slim, forward)[0], _record(masked, forward)[0], strict=False
    ):
        if a != b and not abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-12):
            return name
    return ''
