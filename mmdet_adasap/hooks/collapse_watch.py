# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Watch the clean loss across the pruning events, to say when one has ruined the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from ..pruning import Pruner
from .settings import DEFAULT_IMPORTANCE

WINDOW = 10
"""Iterations that a mean loss is of, before the first event and after each: losses differ from
batch to batch, and within these few an SGD step does not repair much."""
COLLAPSE = 1.5
"""Loss after an event, as a multiple of that before the first, from which on the model counts as
collapsed; between what ruined models and others show in docs/criteria.md."""
FLOOR = 0.5
"""Loss that one before the first event counts as at least. A classifier that knows its training
set by heart has 0.02, and thirty times as much does it no harm there."""


class CollapseWatch:
    """Compares the loss after each pruning event with that before the first one.

    A run that is resumed between events counts from the first that it sees.

    Args:
        interval (int): Iterations from one event to the next.
    """

    def __init__(self, interval: int) -> None:
        self.window = min(interval, WINDOW)
        self._losses: deque = deque(maxlen=self.window)
        self._before: float | None = None
        self._first = 1
        self._event = 0
        self._seen = 0
        self._deepest = self._criterion = ''

    def add(self, outputs: Mapping | None) -> str | None:
        """Take what a training step has returned.

        Args:
            outputs (Mapping, optional): With the key 'loss', as mmengine's models return it.

        Returns:
            str | None: A warning, at most once after each event; None where all is well.
        """
        loss = (outputs or {}).get('loss')
        if not isinstance(loss, torch.Tensor | float | int):
            return None
        self._losses.append(loss.detach() if isinstance(loss, torch.Tensor) else loss)
        self._seen += 1
        if not self._event or self._seen != self.window or not self._before:
            return None
        # Read once per event: to read a number every step would make a GPU wait for the host.
        ratio = _mean(self._losses) / max(self._before, FLOOR)
        return self._warning() if ratio >= COLLAPSE else None

    def start_event(self, event: int, pruner: Pruner) -> None:
        """Note that channels were removed now, after the step that was added last.

        Args:
            event (int): Number of the event, from 1.
            pruner (Pruner): Its masks say what is left.
        """
        if self._before is None and self._losses:
            self._before, self._first = _mean(self._losses), event
        self._event, self._seen = event, 0
        self._losses.clear()
        groups, kept = pruner.channels.groups, pruner.masks.kept
        deepest = sorted(range(len(groups)), key=lambda g: kept[g].mean())[:3]
        self._deepest = ', '.join(
            f'{groups[g].name} ({groups[g].size} -> {kept[g].sum()} channels)' for g in deepest
        )
        self._criterion = type(pruner.importance).__name__

    def _warning(self) -> str:
        other = f", or set importance=dict(type='{DEFAULT_IMPORTANCE}')"
        if self._criterion == DEFAULT_IMPORTANCE:
            other = ''
        return (
            f'AdaSAP: after pruning event {self._event} the loss is {_mean(self._losses):.3g}, '
            f'before event {self._first} it was {self._before:.3g}: this looks like a collapse. '
            f'Cut deepest are {self._deepest}. Raise the target, lengthen prune, lower '
            f'max_pruning_ratio{other}'
        )


def _mean(losses: Iterable) -> float:
    return float(np.mean([float(loss) for loss in losses]))
