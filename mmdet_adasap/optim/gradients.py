# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn
from torch.optim import Optimizer


def optimizer_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """All parameters that an optimizer steps."""
    return [parameter for group in optimizer.param_groups for parameter in group['params']]


@contextmanager
def isolated_gradients(parameters: Iterable[nn.Parameter], add: bool) -> Iterator[None]:
    """Let a backward pass start at no gradient, whatever was accumulated before.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are set aside.
        add (bool): Whether the new gradients are added to the old ones in the end; they are
            dropped otherwise, and if the block raises.
    """
    parameters = list(parameters)
    accumulated = [parameter.grad for parameter in parameters]
    if get_world_size() > 1:  # with gradient_as_bucket_view the next pass would write into them
        accumulated = [None if old is None else old.clone() for old in accumulated]
    for parameter in parameters:
        parameter.grad = None
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for parameter, old in zip(parameters, accumulated, strict=True):
            new, parameter.grad = parameter.grad, old
            if add and succeeded and new is not None:
                parameter.grad = new if old is None else old.add_(new)


@contextmanager
def cloned_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let the block work in copies of the gradients; they are as before afterwards.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are copied.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters]
    try:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


@torch.no_grad()
def unscale(parameters: Iterable[nn.Parameter], scale: Tensor) -> Tensor:
    """Divide gradients by the scale of the loss, in place, and see whether all are finite.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are divided, on one device.
        scale (Tensor): By what the loss was multiplied, 0-dim.

    Returns:
        Tensor: Whether no gradient had an inf or a NaN, as a 0-dim bool tensor that nothing has
        waited for.
    """
    parameters = list(parameters)
    finite = all_finite(parameters, scale.device)
    gradients = _gradients(parameters)
    if gradients:
        # Reciprocals as GradScaler takes them, so that both see the same numbers.
        torch._foreach_mul_(gradients, scale.double().reciprocal().float())
    return finite


@torch.no_grad()
def all_finite(parameters: Iterable[nn.Parameter], device: torch.device) -> Tensor:
    """Whether no gradient has an inf or a NaN, as a 0-dim bool tensor that nobody waits for."""
    gradients = _gradients(parameters)
    if not gradients:
        return torch.ones((), dtype=torch.bool, device=device)
    largest = torch._foreach_norm(gradients, float('inf'))  # that of a NaN is NaN
    return torch.stack([value.float() for value in largest]).isfinite().all()


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [gradient for gradient in gradients if gradient.numel()]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average what each process has accumulated on its own; nothing to do in a single one.

    Args:
        parameters (Iterable[nn.Parameter]): The same in every process.
    """
    if get_world_size() == 1:
        return
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    present = [parameter.grad is not None for parameter in parameters]
    device = parameters[0].device if parameters else None
    somewhere = torch.tensor(present, dtype=torch.float32, device=device)
    all_reduce(somewhere, op='max')
    for parameter, found in zip(parameters, somewhere.tolist(), strict=True):
        if found:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad, op='mean')


def finite_everywhere(loss: Tensor) -> Tensor:
    """Whether a loss is finite in every process, as a 0-dim bool tensor that nobody waits for."""
    finite = torch.isfinite(loss.detach())
    if get_world_size() == 1:
        return finite
    finite = finite.float()
    all_reduce(finite, op='min')
    return finite > 0
