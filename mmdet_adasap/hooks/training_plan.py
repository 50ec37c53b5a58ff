# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a run of AdaSAP will do, said before its first step, and what to run when it is over."""

from __future__ import annotations

import copy
import logging
import shlex
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from ..errors import NoGradientsError, UnreachableTargetError
from ..pruning import Pruner, UniformWidth
from .schedule import Phases
from .settings import AdaSAPSettings

LOW_RATE = 0.25
"""Learning rate at the cut, as a share of the highest, below which a warning is due. A choice of
ours: a cosine is there after two thirds of a run, a milestone (a tenth) at once."""
SHORT_FINETUNE = 0.5
"""Length of fine-tuning, as a share of the prune phase, below which a warning is due. A choice of
ours; AdaSAP's paper fine-tunes for most of the training."""
FEW_EVENTS = 4
"""Pruning events below which a warning is due, a choice of ours: each one then takes a fifth and
more of the model at once, which few iterations make up for."""
MAX_STEPS = 200_000
"""Iterations of the schedulers that are looked at: some seconds. Longer runs go without."""


class Rates(NamedTuple):
    """Learning rates of a run, the highest of all parameter groups each.

    Attributes:
        highest (float): From now to the end.
        at_cut (float): In the first iteration after the cut.
        last (float): In the last iteration.
    """

    highest: float
    at_cut: float
    last: float


class _Optimizer(torch.optim.SGD):
    """Stands in for the real optimizer while the schedulers are tried."""

    def __init__(self, param_groups: list[dict]) -> None:
        groups = [
            {**_numbers(group), 'params': [nn.Parameter(torch.zeros(1))]} for group in param_groups
        ]
        super().__init__(groups, lr=0.0)
        self._global_step = 1  # as after a step, without which schedulers warn


def _numbers(group: Mapping) -> dict:
    """Return the numbers among the settings of a group; capturable optimizers hold tensors."""
    return {
        key: float(value) if isinstance(value, Tensor) else value
        for key, value in group.items()
        if isinstance(value, int | float | tuple)
        or (isinstance(value, Tensor) and value.numel() == 1)
    }


def learning_rates(runner: Runner, phases: Phases) -> Rates | None:
    """Run copies of the schedulers to the end of training.

    Args:
        runner (Runner): A run before its first step.
        phases (Phases): Its phases.

    Returns:
        Rates | None: The rates; None where they follow a metric, or the run is too long to try.
    """
    schedulers = runner.param_schedulers
    # One list for one optimizer; a dict of lists for several, which AdaSAPHook refuses.
    schedulers = schedulers if isinstance(schedulers, list) else []
    if runner.max_iters - runner.iter > MAX_STEPS:
        return None
    # What depends on a validation (ReduceOnPlateau) cannot be known.
    if not all(isinstance(s, _ParamScheduler) and not _needs_metric(s) for s in schedulers):
        return None
    trial = _Optimizer(runner.optim_wrapper.param_groups)
    copies = []
    for scheduler in schedulers:
        twin = copy.copy(scheduler)
        twin.optimizer = trial
        twin.base_values = list(scheduler.base_values)
        twin.verbose = False
        copies.append(twin)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        rates = list(_rates(runner, trial, copies))
    at_cut = min(max(phases.prune_end - runner.iter, 0), len(rates) - 1)
    return Rates(max(rates), rates[at_cut], rates[-1])


def _needs_metric(scheduler: _ParamScheduler) -> bool:
    return getattr(scheduler, 'need_val_args', False)


def _rates(runner: Runner, trial: _Optimizer, schedulers: list) -> Iterator[float]:
    """Yield the highest learning rate of each iteration to come."""
    by_iter = [s for s in schedulers if not s.by_epoch]
    by_epoch = [s for s in schedulers if s.by_epoch]
    counts_epochs = not isinstance(runner.train_loop, IterBasedTrainLoop)
    length = len(runner.train_dataloader) if counts_epochs else 0
    for done in range(runner.iter + 1, runner.max_iters + 1):
        yield max(group['lr'] for group in trial.param_groups)
        for scheduler in by_iter:
            scheduler.step()
        if length and done % length == 0:
            for scheduler in by_epoch:
                scheduler.step()


def log_plan(runner: Runner, settings: AdaSAPSettings, phases: Phases, pruner: Pruner) -> None:
    """Say how many events there are, what is left for fine-tuning, and at what learning rate.

    Args:
        runner (Runner): The run, before its first step.
        settings (AdaSAPSettings): What the config asks for.
        phases (Phases): The phases in iterations.
        pruner (Pruner): What has found the channels.
    """
    channels = pruner.channels
    length = phases.prune_end - phases.warmup_end
    finetune = runner.max_iters - phases.prune_end
    events, done = _number(phases.events, 'pruning event'), phases.events_until(runner.iter)
    events = f'{phases.events - done} of {events}' if done else events
    runner.logger.info(
        f'AdaSAP found {len(channels.groups)} groups of {channels.group_sizes.sum()} channels. '
        f'{events}, one every {phases.interval} iterations after '
        f'iteration {phases.warmup_end}, lead from {_limits(pruner)} of the dense model. The cut '
        f'comes after iteration {phases.prune_end}; {_number(finetune, "iteration")} are left to '
        f'fine-tune'
    )
    if pruner.is_within_target and not done:
        runner.logger.warning(
            f'AdaSAP: the model is within {pruner.target} as it is'
            f'{_latency_now(pruner)}, so nothing will be removed; set a lower target'
        )
    for line in pruner.limits.notices():
        runner.logger.warning(f'AdaSAP: {line}')
    _warn_of_settings(runner, settings)
    if phases.events < FEW_EVENTS:
        runner.logger.warning(
            f'AdaSAP: {_number(phases.events, "pruning event")} in a prune phase of {length} '
            f'iterations, so that each removes much at once; lower interval, for example to '
            f'interval={max(length // 10, 1)}, or lengthen prune'
        )
    if finetune < SHORT_FINETUNE * length:
        runner.logger.warning(
            f'AdaSAP: the cut leaves only {finetune} of {runner.max_iters} iterations to '
            f'fine-tune, less than half of what pruning takes; lower prune or warmup, or train '
            f'for longer'
        )
    rates = learning_rates(runner, phases)
    if rates is None:
        return
    level = logging.INFO
    text = (
        f'AdaSAP: the learning rate is {rates.highest:.3g} at its highest, {rates.at_cut:.3g} '
        f'after the cut and {rates.last:.3g} at the end'
    )
    if rates.at_cut < LOW_RATE * rates.highest:
        level = logging.WARNING
        text += (
            '. The slim model cannot recover at a rate this low: move the milestones of '
            'param_scheduler behind the cut, or end warmup and prune earlier'
        )
    runner.logger.log(level, text)


def _warn_of_settings(runner: Runner, settings: AdaSAPSettings) -> None:
    """Warn of settings that are likely to come from a base config, beside those of the user."""
    target = settings.target
    if len(target.resources) > 1:
        runner.logger.warning(
            f'AdaSAP: {target} has {len(target.resources)} limits, and all of them will hold; if '
            f'one is of a base config, write target=dict(_delete_=True, ...)'
        )
    if target.table is not None and settings.round_to % target.table.step:
        runner.logger.warning(
            f'AdaSAP: round_to={settings.round_to} is no multiple of the step of the device, '
            f'{target.table.step}; write round_to=None for widths that waste no time'
        )
    if target.table is not None and not isinstance(settings.importance, UniformWidth):
        runner.logger.info(
            f'AdaSAP: {type(settings.importance).__name__} chooses how much of each layer goes; '
            f"with importance=dict(_delete_=True, type='UniformWidth') it is the same share of "
            f'each, which was the best at equal time (docs/criteria.md)'
        )


def log_forecast(logger: logging.Logger, pruner: Pruner) -> bool:
    """Say how many parameters and MACs will be left if the scores stay as they are.

    Args:
        logger (logging.Logger): The run's.
        pruner (Pruner): Its masks stay as they are.

    Returns:
        bool: Whether it could be said: a criterion that reads gradients has none at first.
    """
    try:
        kept = pruner.select(pruner.targets)
    except (NoGradientsError, UnreachableTargetError):
        return False
    counts = [int(k.sum()) for k in kept]
    left = {r: pruner.limits.left(r, counts) for r in pruner.limits.costs}
    logger.info(f'AdaSAP: if scores stay as they are, {amounts_left(left)} will be left')
    return True


def amounts_left(left: Mapping[str, float], latency: Mapping | None = None) -> str:
    """Return fractions of the dense model in words.

    Args:
        left (Mapping[str, float]): By resource: 'params', 'flops' and perhaps 'latency'.
        latency (Mapping, optional): The milliseconds of a structure, see
            :meth:`Limits.latency_report`.
    """
    text = f'{left["params"]:.3f} of the parameters and {left["flops"]:.3f} of the MACs'
    if latency is not None and latency['measured_ms'] is not None:
        return (
            f'{text} (measured: {latency["measured_ms"] / latency["dense_ms"]:.3f} of the latency)'
        )
    if 'latency' in left:
        text += f' (predicted: {left["latency"]:.3f} of the latency)'
    return text


def _limits(pruner: Pruner) -> str:
    """Return where each resource that is limited is, and where it is to be."""
    found = [f'{r} {pruner.remaining(r):g} to {f:g}' for r, f in pruner.targets.items()]
    return ' and '.join(found)


def _latency_now(pruner: Pruner) -> str:
    """Return what the model takes, where a latency is limited, to be written after a word."""
    if 'latency' not in pruner.targets:
        return ''
    taken = pruner.remaining('latency') * pruner.dense['latency'] / 1e6
    return f', with {taken:.3g} ms by the table'


def next_steps(runner: Runner) -> str:
    """Return the commands that test, judge and export what training has left."""
    folder = Path(runner.work_dir)
    name = getattr(runner.cfg, 'filename', None)
    config = folder / Path(name).name if name else None  # train.py writes it there
    last = folder / 'last_checkpoint'
    if config is None or not config.exists() or not last.exists():
        return 'adasap robustness, to test it on corrupted images, and adasap export'
    files = f'{shlex.quote(str(config))} {shlex.quote(last.read_text().strip())}'
    folder = shlex.quote(str(folder))
    return '\n'.join(
        [
            'what to run next:',
            f'  python "$(python -m mmdet_adasap.env --tool test)" {files}',
            f'  adasap robustness {files} --out {folder}/robustness',
            f'  adasap export {files} --out {folder}/exported',
        ]
    )


def _number(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 's')
