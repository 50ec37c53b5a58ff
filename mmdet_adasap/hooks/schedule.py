# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The three phases of AdaSAP, and the pruning events in the second one.

Iterations are counted by how many are done: after the first one ``done`` is 1, and a model that
has not been trained has 0 behind it. So a resumed run is in the phase that it was stopped in.
"""

from collections.abc import Callable
from dataclasses import dataclass

SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    'exponential': lambda start, target, progress: start * (target / start) ** progress,
    'linear': lambda start, target, progress: start - (start - target) * progress,
}
"""Fraction of the dense model that is to remain, as a function of the fraction at the start, the
target, and the share of the events that are done, in (0, 1]. 'exponential' removes the same share
of what is left at each event, 'linear' the same number of parameters or FLOPs."""


@dataclass(frozen=True)
class Phases:
    """Phases in iterations: [0, warmup_end) warms up, [warmup_end, prune_end) prunes.

    Args:
        warmup_end (int): Iterations of the warm-up.
        prune_end (int): Iterations of warm-up and prune phase.
        interval (int): Iterations from one pruning event to the next.
        schedule (str): A key of :data:`SCHEDULES`. Defaults to 'exponential'.

    Raises:
        ValueError: If there is no room for a pruning event.
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
        """Number of pruning events; the last one is due in or before the last prune iteration."""
        return (self.prune_end - self.warmup_end) // self.interval

    def phase(self, done: int) -> str:
        """Return the phase of the iteration that comes after ``done`` others."""
        if done < self.warmup_end:
            return 'warmup'
        return 'prune' if done < self.prune_end else 'finetune'

    def end(self, phase: str, total: int) -> int:
        """Return how many iterations are done when a phase ends, in a run of ``total``."""
        return {'warmup': self.warmup_end, 'prune': self.prune_end}.get(phase, total)

    def events_until(self, done: int) -> int:
        """Return the number of events in the first ``done`` iterations, 0 to :attr:`events`."""
        return min(max(done - self.warmup_end, 0) // self.interval, self.events)

    def event(self, done: int) -> int | None:
        """Return the number of the event, from 1 on, that is due after ``done`` iterations.

        Returns:
            int | None: The number; None if no event is due.
        """
        number = self.events_until(done)
        return number if number > self.events_until(done - 1) else None

    def fraction(self, target: float, event: int, start: float = 1.0) -> float:
        """Return the fraction of the dense model that is to remain after an event.

        Args:
            target (float): The fraction after the last event.
            event (int): Number of the event; 0 is before the first.
            start (float): The fraction before the first event, below 1 where a pruned model is
                pruned again. Defaults to 1.0.
        """
        if event == self.events:
            # The formulas may miss the target by a rounding error, and a target that can just be
            # reached would then count as one that cannot.
            return target
        return SCHEDULES[self.schedule](start, target, event / self.events)
