# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a run with a target of latency does beside others: it times what it is about to cut."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
from torch import nn

from ..errors import LatencyTimingError, UnreachableTargetError, listed, one_line
from ..export import time_share_on
from ..pruning import (
    COMMON_STEP,
    Pruner,
    Target,
    TimedChoice,
    TimeShare,
    latency_text,
    most_correction,
    select_corrected,
    select_timed,
)

OFF = 0.1, 0.03
"""How much faster and slower than wanted a network may be without a warning, as shares of the
wanted time: what is slower breaks a promise, and what is faster has lost channels for nothing."""


class LatencyTiming:
    """Times the choice of the first and of the last event of a run, and corrects the limit.

    The first one tells how far the table is off, before channels are gone for good; the last one
    is what will be cut.

    Args:
        target (Target): The target of the run; without a latency nothing is timed.
        logger (logging.Logger): The run's.
    """

    def __init__(self, target: Target, logger: logging.Logger) -> None:
        self._logger, self._table = logger, target.table
        self._time_share: TimeShare | None = None
        if self._table is None:
            return
        reason = 'this machine is another one. Time the network there when it is exported'
        if self._table.input_shape is None:
            reason = 'it has several image sizes; one that was not merged has a single one'
        try:
            self._time_share = time_share_on(self._table)
        except Exception as error:  # each backend has errors of its own, and may be half installed
            reason = f'the backend does not start ({one_line(error)})'
        if self._time_share is None:
            logger.warning(
                f'AdaSAP: latencies are predicted and not measured in this run: the table is of '
                f'{self._table.describe()}, and {reason}'
            )

    def select(
        self, pruner: Pruner, fractions: Mapping[str, float], is_first: bool, is_last: bool
    ) -> tuple[list[np.ndarray], float | None]:
        """Return the channels that an event keeps, and the share of the dense time if timed.

        Args:
            pruner (Pruner): What chooses; its limits are corrected.
            fractions (Mapping[str, float]): What is to remain after the event.
            is_first (bool): Whether no event came before.
            is_last (bool): Whether no event follows.

        Raises:
            UnreachableTargetError: If the choice cannot be made.
        """
        measured = None
        if is_last and self._can_time(pruner):
            kept, measured = self._timed(pruner, fractions)
        else:
            if is_first and self._can_time(pruner):
                self._correct(pruner)
            kept = self._predicted(pruner, fractions)
        if is_last and self._table is not None:
            self._logger.info(f'AdaSAP: {latency_line(pruner, kept, measured)}')
        return kept, measured

    def _predicted(self, pruner: Pruner, fractions: Mapping[str, float]) -> list[np.ndarray]:
        """Return a choice by the table, as far as it was corrected."""
        before = pruner.limits.correction
        kept = select_corrected(pruner, fractions)
        self._warn_if_lowered(pruner, before)
        return kept

    def _warn_if_lowered(self, pruner: Pruner, before: float) -> None:
        """Warn if not all of a correction can be made."""
        if self._table is not None and pruner.limits.correction < before > 1:
            self._logger.warning(
                'AdaSAP: what was timed asks for fewer channels than may go now, so the network '
                'will be slower than the target; layers that are not trained have to stay'
            )

    def _can_time(self, pruner: Pruner) -> bool:
        # A dense network is within a limit above its own time: noise must not get it pruned.
        return self._time_share is not None and pruner.targets['latency'] < 1

    def _timed(
        self, pruner: Pruner, fractions: Mapping[str, float]
    ) -> tuple[list[np.ndarray], float | None]:
        """Return a choice that was timed; if the backend fails, one by the table."""
        correction = pruner.limits.correction
        self._say_that_it_times()
        try:
            choice = select_timed(pruner, fractions, self._time)
        except LatencyTimingError as error:
            pruner.limits.correction = correction
            self._warn(error)
            return self._predicted(pruner, fractions), None
        self._warn_if_off(choice, fractions['latency'])
        return choice.kept, choice.measured

    def _say_that_it_times(self) -> None:
        self._logger.info(
            f'AdaSAP: timing the network that the table chooses beside the dense one '
            f'({self._table.describe()}); a minute or less, or some where it runs for seconds'
        )

    def _warn_if_off(self, choice: TimedChoice, wanted: float) -> None:
        """Warn of a network that takes another time than was asked for."""
        if choice.measured > wanted * (1 + OFF[1]):
            text = 'no choice was faster: what is left of the network takes longer than the table'
        elif choice.measured < wanted * (1 - OFF[0]) and not choice.is_loose(wanted, 1 - OFF[0]):
            text = 'no choice was closer: the table is far off here'
        else:
            return
        self._logger.warning(
            f'AdaSAP: latency {wanted:.3f} of the dense model was asked for, and the network that '
            f'is cut takes {choice.measured:.3f}; {text}, so measure it again with adasap latency'
        )

    def _correct(self, pruner: Pruner) -> None:
        """Correct the limit by what the final choice would take if it were made now."""
        self._say_that_it_times()
        try:
            choice = select_timed(pruner, pruner.targets, self._time)
        except UnreachableTargetError:
            return  # layers that are frozen now may be trained at the last event
        except LatencyTimingError as error:
            pruner.limits.correction = 1.0
            self._warn(error)
            return
        self._logger.info(
            f'AdaSAP: with the scores of now, a network that the table gives '
            f'{choice.predicted:.3f} of the dense latency takes {choice.measured:.3f}; limits are '
            f'corrected by that'
        )
        # A run is not to end half-way.
        most = most_correction(pruner, pruner.targets['latency'])
        pruner.limits.correction = min(choice.own_correction, most)

    def _time(self, dense: nn.Module, slim: nn.Module) -> float:
        """Return the share of the dense time that a copy takes.

        Raises:
            LatencyTimingError: If the backend fails, in whatever way.
        """
        # A training of hours must not end because a file could not be written or memory is full.
        try:
            share = self._time_share(dense, slim)
        except Exception as error:
            raise LatencyTimingError(one_line(error)) from error
        if not 0 < share < math.inf:
            raise LatencyTimingError(f'the clock says {share:g} of the dense time')
        return share

    def _warn(self, error: LatencyTimingError) -> None:
        self._logger.warning(
            f'AdaSAP: the network cannot be timed now ({error}): its latency is predicted by the '
            f'table and not measured; time the network when it is exported'
        )


def latency_line(pruner: Pruner, kept: list[np.ndarray], measured: float | None) -> str:
    """Return what the table and the clock say of a choice, in milliseconds.

    Args:
        pruner (Pruner): What chose.
        kept (list[np.ndarray]): The choice, bool of shape ``[size]`` for each group.
        measured (float, optional): Share of the dense time, timed.
    """
    counts = np.array([k.sum() for k in kept])
    return f'latency {latency_text(pruner.limits.latency_report(counts, measured))}'


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
