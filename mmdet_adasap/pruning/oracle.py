# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The proof of a cut: the slim model gives what the masked one gives."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .structure import Keep, named_tensors
from .surgery import channel_counts, cut
from .tracing import ForwardFn, evaluating, output_tensors, tensors_in

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest output, in float32."""


class WrongCut(RuntimeError):
    """Raised when a slim model does not give what the masked one gives."""


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


def mask(model: nn.Module, keep: Keep) -> None:
    """Zero everything that ``keep`` leaves out, at dense shape, in place."""
    tensors = named_tensors(model)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, axes in keep.items():
            if name not in parameters:
                continue  # statistics: their channel is zero without them
            for axis, index in axes.items():
                zero = torch.ones(tensors[name].shape[axis], dtype=torch.bool)
                zero[index] = False
                tensors[name].data.index_fill_(
                    axis, zero.nonzero().flatten().to(tensors[name].device), 0
                )


def check_cut(model: nn.Module, keep: Keep, forward: ForwardFn) -> float:
    """Cut a copy of a model and compare it with a masked copy; the model stays as it is.

    Args:
        model (nn.Module): The dense model, masked or not.
        keep (dict): Tensor name to axis to kept indices.
        forward (Callable): Runs a model on a real input and returns its raw outputs.

    Returns:
        float: The relative difference found.

    Raises:
        WrongCut: If it is above :data:`TOLERANCE`, naming the first module that differs.
    """
    masked, slim = copy.deepcopy(model), copy.deepcopy(model)
    mask(masked, keep)
    cut(slim, keep, channel_counts(slim, keep))
    reference = raw_outputs(masked, forward)
    try:
        found = difference(raw_outputs(slim, forward), reference)
    except Exception as error:
        where = _first_difference(slim, masked, forward)
        raise WrongCut(f'the cut model does not run; it stops in {where} ({error})') from error
    if found > TOLERANCE:
        found = min(found, _difference_in_double(slim, masked, forward))
    if found > TOLERANCE:
        where = _first_difference(slim, masked, forward)
        raise WrongCut(
            f'the cut model differs from the masked one by {found:.1e} of the largest output, '
            f'first in {where}; its channels are not understood'
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


def _first_difference(slim: nn.Module, masked: nn.Module, forward: ForwardFn) -> str:
    """Name of the first leaf module whose outputs differ in sum between two models."""

    def record(model: nn.Module) -> list[tuple[str, float]]:
        sums, handles = [], []
        for name, module in model.named_modules():
            if not any(module.children()):

                def after(_, args: tuple, output: object, name: str = name) -> None:
                    total = sum(t.double().abs().sum().item() for t in tensors_in(output))
                    sums.append((name, total))

                handles.append(module.register_forward_hook(after))
        try:
            raw_outputs(model, forward)
        except Exception as error:  # the sums up to here tell where
            sums.append((f'the operation after {sums[-1][0] if sums else "the input"}', 0.0))
            del error
        finally:
            for handle in handles:
                handle.remove()
        return sums

    for (name, a), (_, b) in zip(record(slim), record(masked), strict=False):
        if a != b and not abs(a - b) <= 1e-4 * max(abs(a), abs(b), 1e-12):
            return name
    return 'the code between its modules'
