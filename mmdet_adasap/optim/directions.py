# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Directions of ε that cost no pass: what an optimizer remembers of the steps before."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from ..sharpness import Perturbation
from .gradients import optimizer_parameters

DIRECTIONS = ('gradient', 'momentum', 'previous')
MOMENTUM_KEYS = ('momentum_buffer', 'exp_avg')
"""What optimizers call their running mean of gradients: SGD and the like, and the Adam family."""
PREVIOUS_KEY = 'previous_gradient'
"""Where the state of an optimizer has the gradient of the step before. As a part of that state it
is saved and cut as momentum is."""


def check_direction(direction: str, optimizer: Optimizer) -> str:
    """Return a direction if an optimizer has it.

    Args:
        direction (str): One of :data:`DIRECTIONS`.
        optimizer (Optimizer): The optimizer.

    Raises:
        ValueError: If it is none of them, or the optimizer has no momentum.
    """
    if direction not in DIRECTIONS:
        raise ValueError(
            f'optim_wrapper.direction={direction!r} is unknown; use one of '
            f'{", ".join(map(repr, DIRECTIONS))}'
        )
    groups = optimizer.param_groups
    if direction == 'momentum' and not all(g.get('momentum') or 'betas' in g for g in groups):
        raise ValueError(
            f"optim_wrapper.direction='momentum' needs an optimizer with momentum, and "
            f'{type(optimizer).__name__} has none; write momentum=0.9 into '
            f"optim_wrapper.optimizer, or direction='previous'"
        )
    return direction


def check_known_ratio(perturbation: Perturbation | None, direction: str) -> None:
    """Check that the ratio of losses is known where radii are to follow it.

    Args:
        perturbation (Perturbation | None): How the weights are moved.
        direction (str): One of :data:`DIRECTIONS`.

    Raises:
        ValueError: If it is not.
    """
    if perturbation is None or perturbation.controller is None or direction == 'gradient':
        return
    raise ValueError(
        f'loss_ratio={perturbation.controller.wanted:g} needs the loss of a clean pass, and '
        f'optim_wrapper.direction={direction!r} has none; leave loss_ratio out of the '
        f"perturbation, or write direction='gradient'"
    )


def remember_as_gradients(optimizer: Optimizer, direction: str) -> None:
    """Put what an optimizer remembers where gradients are; a first step remembers nothing.

    Args:
        optimizer (Optimizer): The optimizer.
        direction (str): 'momentum', which is turned downhill, or 'previous'.
    """
    keys, sign = (MOMENTUM_KEYS, -1) if direction == 'momentum' else ((PREVIOUS_KEY,), 1)
    for parameter in optimizer_parameters(optimizer):
        state = optimizer.state.get(parameter, {})
        known = next((state[key] for key in keys if state.get(key) is not None), None)
        parameter.grad = None if known is None else sign * known


@torch.no_grad()
def keep_gradients(optimizer: Optimizer) -> None:
    """Keep the gradients of a step in the optimizer's state.

    Args:
        optimizer (Optimizer): The optimizer, after its step: some set up their state in the first.
    """
    for parameter in optimizer_parameters(optimizer):
        if parameter.grad is None:
            continue
        state = optimizer.state[parameter]
        if PREVIOUS_KEY in state:
            state[PREVIOUS_KEY].copy_(parameter.grad)
        else:
            state[PREVIOUS_KEY] = parameter.grad.clone()
