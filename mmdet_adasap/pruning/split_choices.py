# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Along which axis channels live on, where a view splits their axis into several.

``[N, 6]`` viewed as ``[N, 3, 2]`` may hold three parts of two channels, or two parts of three.
What the model does later tells: where it takes single entries of an axis, as ``unbind`` does, that
axis holds the parts. The trace then runs once more.
"""

from collections import defaultdict
from collections.abc import Hashable

import numpy as np


class SplitChoices:
    """Axes that were chosen in the running trace, and those that earlier traces found wrong."""

    def __init__(self) -> None:
        self._wrong: dict[Hashable, set[int]] = defaultdict(set)
        self._made: list[tuple[Hashable, int, int, np.ndarray]] = []
        self._is_revised = False

    def begin_trace(self) -> None:
        """Forget what an earlier trace has chosen, since nodes are numbered anew."""
        self._made, self._is_revised = [], False

    @property
    def is_revised(self) -> bool:
        """Whether a choice of this trace was found wrong, so that another trace is needed."""
        return self._is_revised

    def wrong(self, view: Hashable) -> set[int]:
        """Return the axes along which the channels of a view are not to live on.

        Args:
            view (Hashable): What tells this view from others in every trace: the module that runs,
                the axes that the channels are split into, and their lengths.
        """
        return self._wrong[view]

    def note(self, view: Hashable, axis: int, count: int, nodes: np.ndarray) -> None:
        """Note a choice.

        Args:
            view (Hashable): As in :meth:`wrong`.
            axis (int): Place of the chosen axis among those that the channel axis becomes.
            count (int): Number of these.
            nodes (np.ndarray): Nodes of the chosen axis.
        """
        self._made.append((view, axis, count, nodes))

    def reject(self, nodes: np.ndarray) -> None:
        """Note that single entries of an axis are taken; if it was chosen, another one is next.

        Args:
            nodes (np.ndarray): Nodes of the axis.
        """
        for view, axis, count, chosen in self._made:
            wrong = self._wrong[view]
            # The last axis left is kept, so that the traces come to an end.
            if np.array_equal(chosen, nodes) and axis not in wrong and len(wrong) + 1 < count:
                wrong.add(axis)
                self._is_revised = True
