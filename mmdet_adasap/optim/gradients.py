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
def set_aside(parameters: Iterable[nn.Parameter], add: bool) -> Iterator[None]:
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
