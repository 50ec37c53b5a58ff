# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Keep the promise of a latency: cut a copy, time it, and choose again with a better limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from ..errors import UnreachableTargetError
from .pruner import Pruner

TimeShare = Callable[[nn.Module, nn.Module], float]
"""Takes the dense model and a cut copy; returns the share of the dense time that the copy takes
on the device of the table."""

MOST_CUTS = 3
"""Copies that are cut and timed for one choice: the first correction brings most."""
CLOSE = 0.02
"""How far a measured share may be from the wanted one, of it, before the limit is corrected. Of
an own choice: two timings of the same network differ by about as much."""


@dataclass(frozen=True)
class TimedChoice:
    """A choice of channels that was cut and timed.

    Args:
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group.
        predicted (float): Share of the dense latency by the table.
        measured (float): The same, timed.
        correction (float): What the limit was multiplied by.
    """

    kept: list[np.ndarray]
    predicted: float
    measured: float
    correction: float


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
        TimedChoice: The slowest that is within the limit (and :data:`CLOSE`); if none is, the
        fastest.

    Raises:
        UnreachableTargetError: If the first choice cannot be made.
    """
    wanted, tried = fractions['latency'], []
    for _ in range(MOST_CUTS):
        try:
            choice = _time_choice(pruner, fractions, time_share)
        except UnreachableTargetError:
            # A limit that was corrected may be below what frozen layers let a choice reach.
            if not tried:
                raise
            break
        tried.append(choice)
        # What limits another resource is faster than it has to be, and may stay so.
        is_loose = choice.predicted < 0.97 * wanted * choice.correction
        if abs(choice.measured / wanted - 1) <= CLOSE or (is_loose and choice.measured <= wanted):
            break
        # The smallest groups have to meet the limit.
        predicted = max(_prediction_that_measures(wanted, tried), pruner.floor('latency'))
        pruner.limits.correction = min(predicted, 1.0) / wanted
        if pruner.limits.correction == choice.correction:
            break
    fast_enough = [c for c in tried if c.measured <= wanted * (1 + CLOSE)]
    best = max(fast_enough, key=_measured, default=min(tried, key=_measured))
    pruner.limits.correction = best.correction
    return best


def _measured(choice: TimedChoice) -> float:
    return choice.measured


def _prediction_that_measures(wanted: float, tried: list[TimedChoice]) -> float:
    """Return the predicted share of a choice that is likely to take the wanted one.

    After one timing the table is taken to be off by a factor, after two by a line through both:
    a part of the network that no cut changes is no factor.
    """
    last = tried[-1]
    if len(tried) > 1:
        before = tried[-2]
        rise, run = last.measured - before.measured, last.predicted - before.predicted
        if rise * run > 0:
            return last.predicted + (wanted - last.measured) * run / rise
    return last.predicted * wanted / last.measured


def _time_choice(
    pruner: Pruner, fractions: Mapping[str, float], time_share: TimeShare
) -> TimedChoice:
    """Choose, cut a copy, and time it."""
    kept = pruner.select(fractions)
    measured = time_share(pruner.model, pruner.cut_copy(kept))
    counts = np.array([k.sum() for k in kept])
    predicted = pruner.limits.left('latency', counts)
    return TimedChoice(kept, predicted, measured, pruner.limits.correction)
