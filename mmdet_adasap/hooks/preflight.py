# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Checks of settings against the run that they are to serve, before its first step."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from ..optim import AdaSAPOptimWrapper
from ..robustness.datasets import check_voc_dataset
from .optimizer_trial import check_optimizer
from .schedule import Phases
from .settings import PERTURBATION_KEYS, AdaSAPSettings

MIXED_PRECISION = (
    "For mixed precision write optim_wrapper=dict(type='AdaSAPAmpOptimWrapper') and leave out "
    '--amp, with which train.py puts AmpOptimWrapper there'
)


def check_runner(runner: Runner, position: int) -> None:
    """Raise ValueError if AdaSAPHook cannot follow such a run.

    Args:
        runner (Runner): The run.
        position (int): Where AdaSAPHook is among ``runner.hooks``.

    Raises:
        ValueError: Naming the key to change.
    """
    # A FlexibleRunner leaves the model to a strategy, which would keep the dense one.
    if not isinstance(runner, Runner):
        raise ValueError(
            f"runner_type={type(runner).__name__!r}: AdaSAPHook works with mmengine's Runner; "
            f'leave out runner_type and strategy'
        )
    for other in runner.hooks[:position]:
        if isinstance(other, EMAHook | CheckpointHook):
            raise ValueError(
                f'priority: {type(other).__name__} comes before AdaSAPHook, which has to give the '
                f'model its shape before others load or save it; leave out the priorities of both'
            )


def phases_of_run(settings: AdaSAPSettings, runner: Runner) -> Phases:
    """Return the phases of a run in iterations.

    Args:
        settings (AdaSAPSettings): The lengths of the phases, in epochs or iterations.
        runner (Runner): The run, its loops built.

    Raises:
        ValueError: If the phases do not fit into the run.
    """
    if not settings.by_epoch:
        unit, length, total = 'iterations', 1, runner.max_iters
    elif isinstance(runner.train_loop, IterBasedTrainLoop):
        raise ValueError(
            'by_epoch=True needs a train_cfg that counts epochs, and this one counts '
            'iterations; set by_epoch=False and give warmup and prune in iterations'
        )
    else:
        unit, length, total = 'epochs', len(runner.train_dataloader), runner.max_epochs
    if settings.warmup + settings.prune >= total:
        raise ValueError(
            f'warmup={settings.warmup} and prune={settings.prune} leave none of the {total} '
            f'{unit} of train_cfg to fine-tune; lower them or train for longer'
        )
    return Phases(
        warmup_end=settings.warmup * length,
        prune_end=(settings.warmup + settings.prune) * length,
        interval=settings.interval,
        schedule=settings.schedule,
    )


def check_optim_wrapper(settings: AdaSAPSettings, optim_wrapper: OptimWrapper) -> None:
    """Raise ValueError if an optimizer wrapper cannot do what the settings ask for.

    Args:
        settings (AdaSAPSettings): The settings.
        optim_wrapper (OptimWrapper): The wrapper that the run has, of any kind.

    Raises:
        ValueError: Naming the key to change.
        OptimizerStateError: If the optimizer keeps what cannot be cut.
    """
    name = type(optim_wrapper).__name__
    takes_perturbations = isinstance(optim_wrapper, AdaSAPOptimWrapper)
    for key in PERTURBATION_KEYS:
        if getattr(settings, key) is not None and not takes_perturbations:
            raise ValueError(
                f'{key} needs optim_wrapper.type=AdaSAPOptimWrapper and the run has '
                f'{name}. {MIXED_PRECISION}. Or set perturbation=None, finetune=None to '
                f'prune without the second pass'
            )
    own = getattr(optim_wrapper, 'perturbation', None)
    # When train() is called again the wrapper still has the one that AdaSAPHook gave it.
    if own is not None and own not in (settings.perturbation, settings.finetune):
        raise ValueError(
            'optim_wrapper.perturbation and AdaSAPHook are both set, and the hook would replace '
            'it; leave out optim_wrapper.perturbation, or the hook for plain SAM'
        )
    # mmengine's AmpOptimWrapper shows gradients with the scale in them; ours divides it out.
    is_scaled = hasattr(optim_wrapper, 'loss_scaler') and not takes_perturbations
    if settings.importance.needs_gradients and is_scaled:
        raise ValueError(
            f'importance={type(settings.importance).__name__} reads unscaled gradients, which '
            f'{name} does not have. {MIXED_PRECISION}. Or use MagnitudeImportance'
        )
    # As OptimWrapperDict does, for the networks of a GAN.
    if not hasattr(optim_wrapper, 'optimizer'):
        raise ValueError(
            f'optim_wrapper: AdaSAPHook works with one optimizer, and {name} holds several'
        )
    check_optimizer(optim_wrapper.optimizer)


def check_single_hook(hooks: Sequence[Hook], kind: type[Hook]) -> None:
    """Raise ValueError if a run has more than one hook of a kind."""
    if sum(type(hook) is kind for hook in hooks) > 1:
        raise ValueError(
            f'default_hooks and custom_hooks: {kind.__name__} is there more than once; leave it '
            f'in default_hooks alone'
        )


def check_data(runner: Runner) -> None:
    """Look for every image now, which mmdet would miss only when training comes to it.

    Raises:
        FileNotFoundError: If a VOC set of the run is incomplete.
    """
    for loop in (runner.train_loop, runner.val_loop):
        if loop is not None:
            check_voc_dataset(loop.dataloader.dataset)
