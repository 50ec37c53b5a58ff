# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""When what happens: the three phases of AdaSAP and the pruning events in the second."""

from collections.abc import Callable
from dataclasses import dataclass

SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    'exponential': lambda start, target, progress: start * (target / start) ** progress,
    'linear': lambda start, target, progress: start - (start - target) * progress,
}
"""Fraction that is to remain: from what there is at the start, the target, and the share of events
done in (0, 1]."""


@dataclass(frozen=True)
class Phases:
    """Phases in iterations: [0, warmup_end) warms up, [warmup_end, prune_end) prunes.

    Args:
        warmup_end (int): Iterations of the warm-up.
        prune_end (int): Iterations of warm-up and prune phase.
        interval (int): Iterations from one pruning event to the next.
        schedule (str): A key of :data:`SCHEDULES`.
    """

    warmup_end: int
    prune_end: int
    interval: int
    schedule: str = 'exponential'

    def __post_init__(self) -> None:
        if self.events < 1:
            raise ValueError(
                f'interval={self.interval} is longer than the prune phase of '
                f'{self.prune_end - self.warmup_end} iterations, so nothing would be pruned; '
                f'lower interval or lengthen prune'
            )

    @property
    def events(self) -> int:
        """Number of pruning events."""
        return (self.prune_end - self.warmup_end) // self.interval

    def phase(self, done: int) -> str:
        """The phase that a model with ``done`` iterations behind it is in."""
        if done < self.warmup_end:
            return 'warmup'
        return 'prune' if done < self.prune_end else 'finetune'

    def end(self, phase: str, total: int) -> int:
        """Iterations that a model has behind it when a phase of a run of ``total`` ends."""
        return {'warmup': self.warmup_end, 'prune': self.prune_end}.get(phase, total)

    def events_until(self, done: int) -> int:
        """Number of events that ``done`` iterations bring, 0 to :attr:`events`."""
        return min(max(done - self.warmup_end, 0) // self.interval, self.events)

    def event(self, done: int) -> int | None:
        """Number of the event (from 1 on) that is due after ``done`` iterations, if any."""
        number = self.events_until(done)
        return number if number > self.events_until(done - 1) else None

    def fraction(self, target: float, event: int, start: float = 1.0) -> float:
        """Fraction of the dense model that is to remain after an event; 0 is before the first."""
        if event == self.events:
            return target  # to the last bit
        return SCHEDULES[self.schedule](start, target, event / self.events)
