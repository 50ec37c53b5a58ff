# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the log of a run says of AdaSAP: channels, radii, each iteration, and the cut."""

import logging
from collections.abc import Collection, Mapping, Sequence

import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..errors import listed
from ..pruning import NOT_TRAINED, PHASES, PrunableChannels, unused_weights
from ..sharpness import Perturbation

ONE_PASS = dict(mean_rho=0.0, eps_ratio=0.0, loss_ratio=1.0)
"""What is logged of a step of one pass: it is one with a radius of 0."""
NOT_MOVED = dict(mean_rho=0.0, eps_ratio=0.0)
"""The same in a phase whose steps do not know the loss of a clean pass."""

STEPS = 100
"""Iterations over which L(w+ε)/L(w) is averaged, a choice of ours: it differs from batch to batch,
and wrong radii are to be known of long before a phase is over."""
TOO_LOW, TOO_HIGH = 1.02, 2.0
"""L(w+ε)/L(w) up to which the second pass says as good as nothing new, and from which on it is
about another network. Both are rules of thumb of ours, for warnings alone; the paper has none."""
SETTLING, OFF = 60, 0.3
"""Iterations that a wanted ratio is given to be reached, and how far the mean may be off then, as
a share of what is wanted above 1."""


def log_channels(logger: logging.Logger, channels: PrunableChannels, model: nn.Module) -> None:
    """Warn of the layers in which no channel is removed although a user may expect it.

    Args:
        logger (logging.Logger): The run's.
        channels (PrunableChannels): The channels that were found.
        model (nn.Module): Where they were found.
    """
    names = sorted({tensor.name for tensor in channels.frozen.get(NOT_TRAINED, [])})
    if names:
        logger.warning(
            f'AdaSAP leaves {len(names)} layers whole because they are not trained, '
            f'{names[0]} to {names[-1]}'
        )
    for name, reason in channels.excluded.items():
        logger.warning(f'AdaSAP leaves {name or "the model"} whole: {reason}')
    unseen = unused_weights(model, channels)
    if unseen:
        logger.warning(
            f'AdaSAP leaves {listed(unseen)} whole: no run reached them, in eval mode, in '
            f'train mode or with the loss; should training reach them, it may stop after the cut'
        )


def log_untrained(
    logger: logging.Logger, names: Sequence[str], known: frozenset[str]
) -> frozenset[str]:
    """Warn once of layers that have been frozen since the channels were found.

    Args:
        logger (logging.Logger): The run's.
        names (Sequence[str]): Layers that are not trained at a pruning event.
        known (frozenset[str]): Those that were named before.

    Returns:
        frozenset[str]: All that have been named now.
    """
    new = [name for name in names if name not in known]
    if new:
        logger.warning(
            f'AdaSAP leaves {len(new)} layers and what is tied to them whole while they are not '
            f'trained: {listed(new)}'
        )
    return known.union(new)


class LossRatioWatch:
    """Averages L(w+ε)/L(w) over the first iterations that a run has in a phase.

    What radii do to the loss depends on the model and the data, so nobody can know it beforehand.

    Args:
        phase (str): The phase, for the message.
        key (str): What AdaSAPHook calls the perturbation, 'perturbation' or 'finetune'.
        perturbation (Perturbation): The perturbation.
        done (int): Iterations of the training that are over.
        end (int): How many are over when the phase ends. Of more than 100 to come it takes 100,
            and where radii follow a wanted ratio it lets the first 60 pass, or half of them.

    Attributes:
        stats (Mapping | None): ``last_stats`` of the last step that moved the weights.
    """

    def __init__(
        self, phase: str, key: str, perturbation: Perturbation, done: int, end: int
    ) -> None:
        self.phase, self.key = phase, key
        names = ('rho_max', 'rho_min', 'rho')
        self.radii = [f'{key}.{name}' for name in names if hasattr(perturbation, name)]
        controller = perturbation.controller
        self.wanted = controller and controller.wanted
        self._skipped = 0 if controller is None else min(SETTLING, (end - done) // 2)
        self.first = done + 1 + self._skipped
        self.steps = min(end - done - self._skipped, STEPS)
        self.stats: Mapping[str, Tensor] | None = None
        self._seen = 0
        self._sum = self._finite = torch.zeros(())

    def add(self, ratio: Tensor | float) -> tuple[int, str] | None:
        """Take the ratio of a step.

        Args:
            ratio (Tensor | float): A 0-dim tensor, which is not waited for before the last step.

        Returns:
            tuple[int, str] | None: A level of logging and a message, after the last of the steps.
        """
        if self._skipped:
            self._skipped -= 1
            return None
        if self._seen >= self.steps:
            return None
        # Sums on the device: to read a number every step would make the GPU wait for the host.
        ratio = torch.as_tensor(ratio)
        finite = ratio.isfinite()
        self._sum = self._sum.to(ratio.device) + torch.where(finite, ratio, 0)
        self._finite = self._finite.to(ratio.device) + finite
        self._seen += 1
        return self._verdict() if self._seen == self.steps else None

    def _verdict(self) -> tuple[int, str]:
        finite = int(self._finite)
        last = self.first + self.steps - 1
        text = f'AdaSAP: in iterations {self.first} to {last}, of the phase {self.phase!r}, '
        if not finite:
            return logging.WARNING, f'{text}no loss was finite, at w or at w+ε'
        if finite < self.steps:
            text += f'{self.steps - finite} losses were not finite; elsewhere '
        mean = float(self._sum) / finite
        text += f'loss_ratio, L(w+ε)/L(w), was {mean:.3f} on average'
        if self.wanted is not None:
            if abs(mean - self.wanted) <= OFF * (self.wanted - 1):
                return logging.INFO, f'{text}, as {self.key}.loss_ratio={self.wanted:g} wants it'
            return logging.WARNING, (
                f'{text}, and {self.key}.loss_ratio={self.wanted:g} was asked for: the radii have '
                f'not followed; the phase may be too short, or the loss not depend on the weights'
            )
        radii = ' and '.join(self.radii) or f'the radii of {self.key}'
        if mean <= TOO_LOW:
            return logging.WARNING, (
                f'{text}, so that two passes did hardly more than one: raise {radii} until it is '
                f'about 1.2 to 1.5'
            )
        if mean >= TOO_HIGH:
            return logging.WARNING, (
                f'{text}, which is too far for what is learned at w+ε to help at w: lower '
                f'{radii} until it is about 1.2 to 1.5'
            )
        return logging.INFO, text


def log_iteration(
    runner: Runner, phase: str, watch: LossRatioWatch | None, remaining: Mapping[str, float]
) -> None:
    """Log the phase, what the step did to the loss, and how much of the model is left.

    Args:
        runner (Runner): The run.
        phase (str): The phase that the iteration belongs to.
        watch (LossRatioWatch, optional): What averages the ratio of losses in this phase.
        remaining (Mapping[str, float]): Fractions of the dense model by what they are called.
    """
    stats = getattr(runner.optim_wrapper, 'last_stats', None)
    ratio = None if stats is None else stats.get('loss_ratio')
    message = watch.add(ratio) if watch is not None and ratio is not None else None
    if message is not None:
        runner.logger.log(*message)
    if watch is not None:
        # A plain step between two that move the weights says nothing of them.
        stats = watch.stats = watch.stats if stats is None else stats
        if stats is None and runner.optim_wrapper.direction != 'gradient':
            stats = NOT_MOVED
    stats = ONE_PASS if stats is None else {key: stats[key] for key in ONE_PASS if key in stats}
    _forget_other_phase(runner, phase, stats)
    scalars = {'phase': PHASES.index(phase), **stats, **remaining}
    for key, value in scalars.items():
        runner.message_hub.update_scalar(f'train/{key}', value)


def _forget_other_phase(runner: Runner, phase: str, keys: Collection[str]) -> None:
    """Begin anew what the log averages over past iterations, if the last one had another phase.

    mmengine's LogProcessor takes the mean of a window that knows nothing of phases.
    """
    history = runner.message_hub.log_scalars
    last = history.get('train/phase')
    if last is None or last.current() == PHASES.index(phase):
        return
    for key in ONE_PASS:
        if key in keys:
            # In its place: the log has the keys in this order.
            history[f'train/{key}'] = HistoryBuffer()
        else:
            history.pop(f'train/{key}', None)  # mmengine cannot log an empty one


def layer_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of the weights of convolution and linear layers, by the layer's name."""
    return {
        name: module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    }


def cut_table(model: nn.Module, dense: Mapping[str, torch.Size], structure: Mapping) -> str:
    """Lay out the layers that shrank with their channels, and the parameters and FLOPs left.

    Args:
        model (nn.Module): The slim model.
        dense (Mapping[str, torch.Size]): Its :func:`layer_shapes` before the cut.
        structure (Mapping): Its structure.
    """
    rows, unchanged = [('layer', 'inputs', 'outputs', 'parameters')], 0
    for name, module in model.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear):
            continue
        before, after = dense[name], module.weight.shape
        if before == after:
            unchanged += 1
            continue
        # Weights are [out, in, ...], those of transposed convolutions [in, out, ...].
        inputs, outputs = (0, 1) if getattr(module, 'transposed', False) else (1, 0)
        rows.append(
            (
                name,
                _change(before[inputs], after[inputs]),
                _change(before[outputs], after[outputs]),
                _change(before.numel(), after.numel()),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    totals = [
        f'{resource}: {_amount(resource, structure["dense"][resource])} -> '
        f'{_amount(resource, structure["dense"][resource] * left)} ({left:.4f})'
        for resource, left in structure['reached'].items()
    ]
    return '\n'.join(
        ['AdaSAP cut the model', *lines, f'{unchanged} more layers as before', *totals]
    )


def _amount(resource: str, amount: float) -> str:
    return f'{amount / 1e6:.3g} ms' if resource == 'latency' else f'{round(amount):,}'


def _change(before: int, after: int) -> str:
    return f'{before:,}' if before == after else f'{before:,} -> {after:,}'
