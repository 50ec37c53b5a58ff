# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a run with a target of latency does beside others: it times what it is about to cut."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from mmengine.dist import is_main_process

from ..errors import UnreachableTargetError, listed
from ..export import time_share_on
from ..integration import broadcast_from_rank_0
from ..pruning import Pruner, Target, TimeShare, select_timed


class LatencyTiming:
    """Times the choice of the first and of the last event of a run, and corrects the limit.

    The first one tells how far the table is off, before channels are gone for good; the last one
    is what will be cut.

    Args:
        target (Target): The target of the run; without a latency nothing is timed.
        logger (logging.Logger): The run's.

    Attributes:
        is_checked (bool): Whether a choice was timed, or cannot be, in this run.
    """

    def __init__(self, target: Target, logger: logging.Logger) -> None:
        self._logger = logger
        self.is_checked = True
        self._time_share: TimeShare | None = None
        if target.table is None:
            return
        self._time_share = time_share_on(target.table)
        if self._time_share is None:
            logger.warning(
                f'AdaSAP: latencies are predicted and not measured in this run: the table is of '
                f'{target.table.describe()}, and this machine is another one. Time the network '
                f'there when it is exported'
            )
            return
        self.is_checked = False

    def select(
        self, pruner: Pruner, fractions: Mapping[str, float], is_last: bool
    ) -> list[np.ndarray]:
        """Return the channels that an event keeps, in all processes those of rank 0.

        Args:
            pruner (Pruner): What chooses.
            fractions (Mapping[str, float]): What is to remain after the event.
            is_last (bool): Whether no event follows.

        Raises:
            UnreachableTargetError: If the choice cannot be made.
        """
        kept = None
        if self._time_share is not None and is_main_process():
            if is_last:
                choice = select_timed(pruner, fractions, self._time_share)
                kept, pruner.measured = choice.kept, choice.measured
                self._logger.info(f'AdaSAP: {latency_line(pruner, choice.predicted)}')
            elif not self.is_checked:
                self._correct(pruner)
        self.is_checked = True
        if kept is None:
            kept = pruner.select(fractions)
        if self._time_share is None:
            return kept
        kept, pruner.measured, pruner.limits.correction = broadcast_from_rank_0(
            (kept, pruner.measured, pruner.limits.correction)
        )
        return kept

    def _correct(self, pruner: Pruner) -> None:
        """Correct the limit by what the final choice would take if it were made now."""
        try:
            choice = select_timed(pruner, pruner.targets, self._time_share)
        except UnreachableTargetError:
            return
        self._logger.info(
            f'AdaSAP: with the scores of now, a network that the table gives '
            f'{choice.predicted:.3f} of the dense latency takes {choice.measured:.3f}; limits are '
            f'multiplied by {choice.correction:.3f}'
        )


def latency_line(pruner: Pruner, predicted: float) -> str:
    """Return what the table and the clock say of a choice, in milliseconds."""
    table, dense = pruner.target.table, pruner.dense['latency'] / 1e6
    text = f'latency {predicted * dense:.3g} ms by the table'
    if pruner.measured is not None:
        text += f', {pruner.measured * dense:.3g} ms measured'
    return f'{text}, of {dense:.3g} ms dense ({table.describe()})'


COMMON_STEP = 16
"""Step of a device that nobody has told of: CPUs with AVX-512 have it in both of their backends,
and matrix units of GPUs in fp16 at least 8."""


def log_off_step(logger: logging.Logger, pruner: Pruner) -> None:
    """Say which layers keep a number of channels that is no multiple of the device's step.

    Args:
        logger (logging.Logger): The run's.
        pruner (Pruner): That has cut its model.
    """
    table, counts = pruner.target.table, pruner.masks.counts
    step = COMMON_STEP if table is None else table.step
    units = pruner.channels.channels_per_unit
    off = [
        f'{group.name} ({count * unit})'
        for group, count, unit in zip(pruner.channels.groups, counts, units, strict=True)
        if count < group.size and count * unit % step
    ]
    if not off:
        return
    text = f'AdaSAP: {len(off)} groups of channels keep no multiple of {step}: {listed(off, 3)}; '
    cost = pruner.limits.costs.get('latency')
    if cost is None:
        text += (
            f'many devices need as long for them as for the next multiple: round_to={step} may '
            f'be faster at the same size (adasap latency finds the step of a device)'
        )
    else:
        full = counts * units // step * step // units
        saved = (cost(counts) - cost(np.where(full > 0, full, counts))) / 1e6
        text += f'by the table what is beyond the multiples costs {saved:.3g} ms'
    logger.info(text)
