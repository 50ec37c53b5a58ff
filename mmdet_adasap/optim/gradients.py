# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn
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
