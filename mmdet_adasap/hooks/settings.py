# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a config says of AdaSAPHook: checked when it is made, and written into checkpoints."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ..pruning import (
    MAX_PRUNING_RATIO,
    Importance,
    Target,
    check_max_pruning_ratio,
    check_objective,
    check_solver,
    check_target,
    default_step,
)
from ..registry import IMPORTANCES, PERTURBATIONS, build, check_integer, names
from ..sharpness import Perturbation
from .schedule import SCHEDULES

PERTURBATION_KEYS = ('perturbation', 'finetune')
"""Settings that may change when a run is resumed: neither the schedule nor the choice of channels
depends on them."""

DEFAULT_IMPORTANCE = 'TaylorImportance'
"""Criterion of a run that names none: the safest of those compared in docs/criteria.md."""
LATENCY_IMPORTANCE = 'UniformWidth'
"""The same where a latency is limited: the best at equal measured time, see there."""
BY_TARGET = 'by target'
"""Stands for the criterion that the target decides."""

NEEDED = {
    'warmup': 'write the epochs before pruning begins, as warmup=2',
    'prune': 'write the epochs in which channels are removed, as prune=8; the rest fine-tunes',
    'target': 'write what is to remain, as target=dict(params=0.4) or target=dict(flops=0.5)',
}
"""Settings without a default, and what to write where one is missing."""
PART_OF_EPOCH = 'for a part of an epoch count iterations, with by_epoch=False'


def _adaptive() -> dict:
    return dict(type='AdaptivePerturbation')


def _uniform() -> dict:
    # 'weights' are those that AdaptivePerturbation moves too: only the radii change at the cut.
    return dict(
        type='UniformPerturbation', rho=0.1, scope='layer', asam=True, parameters='weights'
    )


def default_importance(resources: Collection[str]) -> str:
    """Return the criterion of a run that names none.

    Args:
        resources (Collection[str]): What the target limits.
    """
    return LATENCY_IMPORTANCE if 'latency' in resources else DEFAULT_IMPORTANCE


@dataclass(frozen=True)
class AdaSAPSettings:
    """Settings of one run of AdaSAP (arXiv:2306.14306).

    Args:
        warmup (int): Epochs (or iterations) of the first phase, 0 or more.
        prune (int): Epochs (or iterations) of the second phase; the rest fine-tunes.
        target (dict): What is to remain of the dense model: ``dict(params=0.4)``, or
            ``dict(flops=0.5)`` of the multiply-accumulates for the first validation image, or
            ``dict(latency=0.6, table='table.json')`` of the time on the device of that table, or
            ``latency='12ms'``. Of several all have to hold. Of the dense one also where a pruned
            model is pruned again.
        perturbation (dict | Perturbation, optional): Perturbation of warm-up and prune phase;
            None for one pass. Defaults to ``dict(type='AdaptivePerturbation')``.
        finetune (dict | Perturbation, optional): Perturbation of the third phase; None for one
            pass. Defaults to ``dict(type='UniformPerturbation', rho=0.1, scope='layer',
            asam=True, parameters='weights')``.
        importance (dict | Importance): Criterion of removal. Defaults to
            ``dict(type='TaylorImportance')``, and to ``dict(type='UniformWidth')`` with a latency
            in the target.
        interval (int): Iterations from one pruning event to the next. Defaults to 30.
        schedule (str): How the target is approached, 'exponential' or 'linear'. Defaults to
            'exponential'.
        round_to (int, optional): Channels that a layer keeps are a multiple of it. Defaults to
            None: 8, or the step of the device where the target has a table.
        max_pruning_ratio (float): The largest share of its channels that a layer may lose, in
            (0, 1]. Defaults to 0.9.
        solver (str): How channels are chosen within the budget: 'ranked' by their importance
            alone, or 'joint' by what it adds up to for what they cost. Defaults to 'ranked'.
        objective (str): What 'joint' makes the most of: 'sum', the importance that is left in
            all, or 'log', the logarithms of the share that each layer keeps of its own, which
            makes deep cuts dear. Defaults to 'sum'.
        by_epoch (bool): Whether ``warmup`` and ``prune`` count epochs. Defaults to True.

    Raises:
        ValueError: If a setting is not valid; the message begins with its key.
    """

    warmup: int
    prune: int
    target: Target
    perturbation: Perturbation | None = field(default_factory=_adaptive)
    finetune: Perturbation | None = field(default_factory=_uniform)
    importance: Importance = BY_TARGET
    interval: int = 30
    schedule: str = 'exponential'
    round_to: int | None = None
    max_pruning_ratio: float = MAX_PRUNING_RATIO
    solver: str = 'ranked'
    objective: str = 'sum'
    by_epoch: bool = True

    def __post_init__(self) -> None:
        check_integer('warmup', self.warmup, 0, hint_for_float=PART_OF_EPOCH)
        check_integer('prune', self.prune, 1, hint_for_float=PART_OF_EPOCH)
        check_integer('interval', self.interval, 1)
        if self.round_to is not None:
            check_integer('round_to', self.round_to, 1)
        # A list is no key of SCHEDULES and would raise a TypeError that names no setting.
        if not isinstance(self.schedule, str) or self.schedule not in SCHEDULES:
            raise ValueError(
                f'schedule={self.schedule!r} is unknown; use one of {list(SCHEDULES)}'
            )
        if not isinstance(self.by_epoch, bool):
            raise ValueError(f'by_epoch={self.by_epoch!r} must be True or False')
        check_max_pruning_ratio(self.max_pruning_ratio)
        check_solver(self.solver)
        check_objective(self.objective, self.solver)
        target = check_target(self.target)
        importance = self.importance
        if isinstance(importance, str) and importance == BY_TARGET:
            importance = dict(type=default_importance(target.resources))
        built = {
            'target': target,
            'round_to': self.round_to or default_step(target.table),
            'perturbation': build(PERTURBATIONS, self.perturbation, 'perturbation'),
            'finetune': build(PERTURBATIONS, self.finetune, 'finetune'),
            'importance': build(IMPORTANCES, importance, 'importance'),
        }
        if built['importance'] is None:
            raise ValueError(f'importance=None; name one of {names(IMPORTANCES)}')
        for key, value in built.items():
            object.__setattr__(self, key, value)  # the way around frozen=True

    def perturbation_of(self, phase: str) -> tuple[str, Perturbation | None]:
        """Return the setting that says how weights are moved in a phase, and its value.

        Args:
            phase (str): 'warmup', 'prune' or 'finetune'.

        Returns:
            tuple[str, Perturbation | None]: 'perturbation' or 'finetune', and the perturbation.
        """
        key = 'finetune' if phase == 'finetune' else 'perturbation'
        return key, getattr(self, key)

    def to_dict(self) -> dict:
        """Return the settings as plain data, as a checkpoint holds them.

        The keys, their order and what is in them are read by runs that are resumed: those of
        :data:`PERTURBATION_KEYS` may differ then, all others may not.
        """
        keys = ('warmup', 'prune', 'by_epoch', 'interval', 'schedule', 'round_to', 'target')
        plain = {key: getattr(self, key) for key in keys} | {'target': self.target.to_dict()}
        parts = {
            key: part_to_dict(getattr(self, key)) for key in ('importance', *PERTURBATION_KEYS)
        }
        # Newer than the first checkpoints, whose keys come first.
        newer = {key: getattr(self, key) for key in ('max_pruning_ratio', 'solver', 'objective')}
        return plain | parts | newer


def part_to_dict(part: Importance | Perturbation | None) -> dict | None:
    """Return the type of a criterion or perturbation and what it was built with, as plain data."""
    if part is None:
        return None
    arguments = {
        key: value
        for key, value in sorted(vars(part).items())
        # Sums of gradients and modules that were found are state, not settings.
        if not key.startswith('_') and isinstance(value, bool | int | float | str | None)
    }
    if arguments.get('loss_ratio', 0) is None:  # the first checkpoints do not have it
        del arguments['loss_ratio']
    return {'type': type(part).__name__, **arguments}
