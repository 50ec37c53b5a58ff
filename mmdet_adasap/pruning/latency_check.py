# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Keep the promise of a latency: cut a copy, time it, and choose again with a better limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from ..errors import LatencyTimingError, UnreachableTargetError, one_line
from .pruner import Pruner

TimeShare = Callable[[nn.Module, nn.Module], float]
"""Takes the dense model and a cut copy; returns the share of the dense time that the copy takes
on the device of the table."""

MOST_CUTS = 3
"""Copies that are cut and timed for one choice: the first correction brings most."""
LEAST_CORRECTION = 1e-3
"""A limit that is corrected stays below the dense time, so that something is cut."""
FASTER, SLOWER = 0.02, 0.01
"""How much faster and slower than wanted a network may be, as shares of the wanted time, before
the limit is corrected. Two timings of the same network differ by up to 0.02, and the promise is
0.03: slower than wanted by 0.02 now is slower by 0.03 in the next timing."""
FULL = 0.97
"""Share of a limit from which on a choice is taken to be made for it: steps of channels leave a
few percent."""
ROUNDING = 1e-6
"""A nanosecond of a millisecond, by which a limit may round below what it is to allow."""


@dataclass(frozen=True)
class TimedChoice:
    """A choice of channels that was cut and timed.

    Args:
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group.
        predicted (float): Share of the dense latency by the table.
        measured (float): The same, timed.
        correction (float): ``Limits.correction`` with which it was made.
    """

    kept: list[np.ndarray]
    predicted: float
    measured: float
    correction: float

    @property
    def own_correction(self) -> float:
        """The correction with which table and clock agree on this choice."""
        if not (self.predicted < 1 and self.measured < 1):
            return self.correction
        return (1 - self.predicted) / (1 - self.measured)

    def is_loose(self, wanted: float, share: float) -> bool:
        """Whether the table gives it less time than this share of the limit.

        Another resource is then what limits it, and it may stay faster than it has to be.
        """
        return self.predicted < share * (1 - (1 - wanted) * self.correction)


def select_timed(
    pruner: Pruner, fractions: Mapping[str, float], time_share: TimeShare
) -> TimedChoice:
    """Choose channels so that the measured latency is within its limit.

    The choice by the table is cut off a copy and timed. If it takes another share of the dense
    time than is wanted, the limit is corrected by it, and the choice is made again, three
    times at most. ``pruner.limits.correction`` is set to that of the choice; its model stays.

    Args:
        pruner (Pruner): With a target of latency.
        fractions (Mapping[str, float]): What is to remain, by resource.
        time_share (Callable): Times a copy, see :data:`TimeShare`.

    Returns:
        TimedChoice: The slowest that is within the limit (and :data:`SLOWER`); if none is, the
        fastest.

    Raises:
        UnreachableTargetError: If the first choice cannot be made.
        LatencyTimingError: If the first one cannot be timed.
    """
    wanted, tried, limits = fractions['latency'], [], pruner.limits
    for _ in range(MOST_CUTS):
        try:
            choice = _time_choice(pruner, fractions, time_share)
        except (UnreachableTargetError, LatencyTimingError):
            # What was timed before counts.
            if not tried:
                raise
            break
        tried.append(choice)
        is_loose = choice.is_loose(wanted, FULL)
        is_close = 1 - FASTER <= choice.measured / wanted <= 1 + SLOWER
        if is_close or (is_loose and choice.measured <= wanted):
            break
        if wanted >= 1:
            break
        correction = (1 - _prediction_for(wanted, tried)) / (1 - wanted)
        correction = max(min(correction, most_correction(pruner, wanted)), LEAST_CORRECTION)
        if correction == limits.correction:
            break
        limits.correction = correction
    fast_enough = [c for c in tried if c.measured <= wanted * (1 + SLOWER)]
    best = max(fast_enough, key=_measured, default=min(tried, key=_measured))
    limits.correction = best.correction
    return best


def most_correction(pruner: Pruner, wanted: float) -> float:
    """Return the largest ``Limits.correction`` with which the smallest groups meet a limit.

    Args:
        pruner (Pruner): With a target of latency.
        wanted (float): Share of the dense latency that is to remain, below 1.
    """
    least = pruner.limits.predicted(pruner.least_counts)
    return (1 - least) / (1 - wanted) * (1 - ROUNDING)


def select_corrected(pruner: Pruner, fractions: Mapping[str, float]) -> list[np.ndarray]:
    """Choose channels; if only the correction is in the way, with the largest that is not.

    A table that is far off must not end a training that could go on without it. Layers that are
    not trained now can be in the way, of which :func:`most_correction` knows nothing.

    Args:
        pruner (Pruner): With a target of latency; its ``limits.correction`` may be lowered.
        fractions (Mapping[str, float]): What is to remain, by resource.

    Returns:
        list[np.ndarray]: The choice, bool of shape ``[size]`` for each group.

    Raises:
        UnreachableTargetError: If the choice cannot be made without a correction either.
    """
    try:
        return pruner.select(fractions)
    except UnreachableTargetError as error:
        limits = pruner.limits
        if error.resource != 'latency' or limits.correction <= 1:
            raise
        least = error.remaining / limits.dense['latency']
        reachable = (1 - least) / (1 - fractions['latency']) * (1 - ROUNDING)
        if reachable < 1:
            raise
        limits.correction = min(reachable, limits.correction)
        return pruner.select(fractions)


def _measured(choice: TimedChoice) -> float:
    return choice.measured


def _prediction_for(wanted: float, tried: Sequence[TimedChoice]) -> float:
    """Return the predicted share of a choice that is likely to take the wanted one.

    On the line through the nearest timed choices above and below it; the dense network, which is
    1 by both, counts as one. Without one below, through the two nearest above.
    """
    points = sorted([(c.measured, c.predicted) for c in tried] + [(1.0, 1.0)])
    below = [point for point in points if point[0] <= wanted]
    above = [point for point in points if point[0] > wanted]
    first, second = (below[-1], above[0]) if below else above[:2]
    rise, run = second[0] - first[0], second[1] - first[1]
    if rise > 0 and run > 0:
        return first[1] + (wanted - first[0]) * run / rise
    # More channels were no slower: noise, of which no line says anything.
    return tried[-1].predicted * wanted / tried[-1].measured


def _time_choice(
    pruner: Pruner, fractions: Mapping[str, float], time_share: TimeShare
) -> TimedChoice:
    """Choose, cut a copy, and time it."""
    kept = select_corrected(pruner, fractions)
    try:
        slim = pruner.cut_copy(kept)
    except (RuntimeError, ValueError, MemoryError) as error:  # no memory for it, as a rule
        raise LatencyTimingError(one_line(error)) from error
    measured = time_share(pruner.model, slim)
    counts = np.array([k.sum() for k in kept])
    predicted = pruner.limits.predicted(counts)
    return TimedChoice(kept, predicted, measured, pruner.limits.correction)
