# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What of that which was found in an image is right, to show it; no figure depends on this."""

from typing import NamedTuple

import numpy as np

from .reading import Boxes, Guess

SCORE = 0.3
"""Boxes with a lower score are not shown."""
OVERLAP = 0.5
"""Intersection over union from which on a box is on an object."""


class Found(NamedTuple):
    """The boxes of a model in an image that are shown.

    Attributes:
        boxes (Boxes): Those with a score of at least ``SCORE``, best first.
        right (tuple[bool, ...]): Whether each is on an object of its class that no better one is
            on.
    """

    boxes: Boxes
    right: tuple[bool, ...]


class Said(NamedTuple):
    """The class that a model gave an image.

    Attributes:
        guess (Guess): The class.
        right (tuple[bool]): Whether the metric counts it.
    """

    guess: Guess
    right: tuple[bool]


def judge(found: Boxes | Guess, truth: Boxes | Guess) -> Found | Said:
    """Say what is right of what a model found; both are boxes, or both a class."""
    if isinstance(found, Boxes):
        return match(found, truth)
    return Said(found, (found.right,))


def match(found: Boxes, truth: Boxes) -> Found:
    """Choose the boxes to show and say which are right."""
    order = np.argsort([-score for score in found.scores], kind='stable')
    shown = [int(i) for i in order if found.scores[i] >= SCORE]
    taken: set[int] = set()
    right = []
    for i in shown:
        overlaps = {
            j: overlap(found.bboxes[i], truth.bboxes[j])
            for j in range(len(truth.labels))
            if j not in taken and truth.labels[j] == found.labels[i]
        }
        best = max(overlaps, key=lambda j: overlaps[j], default=None)
        hit = best is not None and overlaps[best] >= OVERLAP
        right.append(hit)
        if hit:
            taken.add(best)
    boxes = Boxes(*(tuple(values[i] for i in shown) for values in found))
    return Found(boxes, tuple(right))


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2)."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, other)]
    return shared / (sum(areas) - shared) if shared else 0.0
