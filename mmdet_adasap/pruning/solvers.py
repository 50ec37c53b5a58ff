# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The ways to choose channels within a budget, by the names that a config has for them."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ..errors import did_you_mean
from .joint import OBJECTIVES, select_jointly
from .selection import select_channels

SOLVERS = {'ranked': select_channels, 'joint': select_jointly}
"""Ways to choose the channels that a budget leaves, by name."""


def check_solver(name: object) -> None:
    """Raise ValueError if there is no such solver."""
    if not isinstance(name, str) or name not in SOLVERS:
        raise ValueError(
            f"solver={name!r} is unknown; use 'ranked', by importance alone, or 'joint', by "
            f'importance and cost{did_you_mean(name, SOLVERS)}'
        )


def check_objective(name: object, solver: str) -> None:
    """Raise ValueError if there is no such objective, or the solver does not ask for one.

    Args:
        name (object): What was written.
        solver (str): The solver beside it.
    """
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise ValueError(
            f"objective={name!r} is unknown; use 'sum', for the most importance in all, or 'log', "
            f'which makes deep cuts of a layer dear{did_you_mean(name, OBJECTIVES)}'
        )
    if name != 'sum' and solver != 'joint':
        raise ValueError(
            f"objective={name!r} is for solver='joint', and solver={solver!r} has none; write "
            f"solver='joint' beside it"
        )


def solver_of(name: str, objective: str) -> Callable[..., list[np.ndarray]]:
    """Return the function that selects channels.

    Args:
        name (str): One of :data:`SOLVERS`.
        objective (str): One of ``OBJECTIVES``, 'sum' or 'log'.

    Returns:
        Callable: Takes the arguments of :func:`~mmdet_adasap.pruning.selection.select_channels`.

    Raises:
        ValueError: If there is no such solver or objective, or they do not go together.
    """
    check_solver(name)
    check_objective(objective, name)
    return SOLVERS[name] if name == 'ranked' else partial(SOLVERS[name], objective=objective)
