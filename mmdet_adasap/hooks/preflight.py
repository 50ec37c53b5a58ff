# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Settings of AdaSAPHook against the run that they are to serve, before its first step."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.optim import Optimizer

from ..optim import AdaSAPOptimWrapper
from ..pruning.slicing import check_states
from ..robustness.datasets.voc_files import check_voc_dataset
from .schedule import Phases

if TYPE_CHECKING:
    from .adasap_hook import AdaSAPHook

MIXED_PRECISION = (
    "For mixed precision write optim_wrapper=dict(type='AdaSAPAmpOptimWrapper') and leave out "
    '--amp, with which train.py puts AmpOptimWrapper there'
)


def check_runner(hook: AdaSAPHook, runner: Runner) -> None:
    """Refuse a run that AdaSAPHook cannot follow.

    Raises:
        ValueError: Naming the key to change.
    """
    if not isinstance(runner, Runner):
        raise ValueError(
            f"runner_type={type(runner).__name__!r}: AdaSAPHook works with mmengine's Runner; "
            f'leave out runner_type and strategy'
        )
    for other in runner.hooks[: runner.hooks.index(hook)]:
        if isinstance(other, EMAHook | CheckpointHook):
            raise ValueError(
                f'priority: {type(other).__name__} comes before AdaSAPHook, which has to give the '
                f'model its shape before others load or save it; leave out the priorities of both'
            )


def at_least(key: str, value: object, least: int) -> int:
    """``value``, if it is an integer that is not below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'{key}={value!r} must be an integer of at least {least}')
    return value


def phases_of_run(hook: AdaSAPHook, runner: Runner) -> Phases:
    """The phases in iterations.

    Raises:
        ValueError: If they do not fit into the run.
    """
    if not hook.by_epoch:
        unit, length, total = 'iterations', 1, runner.max_iters
    elif isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(
            'by_epoch=True needs a train_cfg that counts epochs, and this one counts '
            'iterations; set by_epoch=False and give warmup and prune in iterations'
        )
    else:
        unit, length, total = 'epochs', len(runner.train_dataloader), runner.max_epochs
    if hook.warmup + hook.prune >= total:
        raise ValueError(
            f'warmup={hook.warmup} and prune={hook.prune} leave none of the {total} {unit} '
            f'of train_cfg to fine-tune; lower them or train for longer'
        )
    return Phases(
        warmup_end=hook.warmup * length,
        prune_end=(hook.warmup + hook.prune) * length,
        interval=hook.interval,
        schedule=hook.schedule,
    )


def check_optim_wrapper(hook: AdaSAPHook, runner: Runner) -> None:
    """Refuse a run whose optimizer wrapper cannot do what the hook asks for.

    Raises:
        ValueError: Naming the key to change.
    """
    wrapper = type(runner.optim_wrapper).__name__
    for key in ('perturbation', 'finetune'):
        if getattr(hook, key) is not None and not isinstance(
            runner.optim_wrapper, AdaSAPOptimWrapper
        ):
            raise ValueError(
                f'{key} needs optim_wrapper.type=AdaSAPOptimWrapper and the run has '
                f'{wrapper}. {MIXED_PRECISION}. Or set perturbation=None, finetune=None to '
                f'prune without the second pass'
            )
    if sum(type(other) is type(hook) for other in runner.hooks) > 1:
        raise ValueError(
            'default_hooks and custom_hooks: AdaSAPHook is there more than once; leave it in '
            'default_hooks alone'
        )
    own = getattr(runner.optim_wrapper, 'perturbation', None)
    if own is not None and own not in (hook.perturbation, hook.finetune):
        raise ValueError(
            'optim_wrapper.perturbation and AdaSAPHook are both set, and the hook would replace '
            'it; leave out optim_wrapper.perturbation, or the hook for plain SAM'
        )
    scaled = hasattr(runner.optim_wrapper, 'loss_scaler')
    ours = isinstance(runner.optim_wrapper, AdaSAPOptimWrapper)
    if hook.importance.needs_gradients and scaled and not ours:
        raise ValueError(
            f'importance={type(hook.importance).__name__} reads unscaled gradients, which '
            f'{wrapper} does not have. {MIXED_PRECISION}. Or use MagnitudeImportance'
        )
    if not hasattr(runner.optim_wrapper, 'optimizer'):
        raise ValueError(
            f'optim_wrapper: AdaSAPHook works with one optimizer, and {wrapper} holds several'
        )
    _try_optimizer(runner.optim_wrapper.optimizer)


def _try_optimizer(optimizer: Optimizer) -> None:
    """Let an optimizer of this kind make its state for a parameter, and see whether it can be cut.

    Raises:
        OptimizerStateError: If it cannot.
        ValueError: If it cannot be stepped without further arguments.
    """
    trial = stepped_once(optimizer)
    if trial is not None:
        check_states([trial])


def stepped_once(optimizer: Optimizer) -> Optimizer | None:
    """Another one of the kind that has stepped once; None if it wants further arguments."""
    parameter = nn.Parameter(torch.zeros(4, 3))
    parameter.grad = torch.zeros(4, 3)
    known = inspect.signature(type(optimizer)).parameters  # AdamW has defaults beside these
    try:
        arguments = {key: value for key, value in optimizer.defaults.items() if key in known}
        trial = type(optimizer)([parameter], **arguments)
    except Exception:
        return None  # the cut itself looks once more
    try:
        trial.step()
    except TypeError as error:
        raise ValueError(
            f'optim_wrapper.optimizer: {type(optimizer).__name__} cannot be stepped as mmengine '
            f'does ({error}); use SGD, Adam or AdamW'
        ) from error
    return trial


def check_data(runner: Runner) -> None:
    """Look for every image now, which mmdet would miss only when training comes to it.

    Raises:
        FileNotFoundError: If a VOC set of the run is incomplete.
    """
    for loop in (runner.train_loop, runner.val_loop):
        if loop is not None:
            check_voc_dataset(loop.dataloader.dataset)
