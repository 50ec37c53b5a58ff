# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which channels go so that a budget holds."""

import numpy as np

from ..errors import UnreachableTargetError
from .cost import Cost


def minimum_counts(sizes: np.ndarray, round_to: int | np.ndarray) -> np.ndarray:
    """The fewest channels that a group may keep, int of shape ``[groups]``.

    One step of ``round_to`` (of each group, if it is an array); a group smaller than that is
    left whole.
    """
    return np.minimum(sizes, round_to)


def select_channels(
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    cost: Cost,
    limit: float,
    round_to: int | np.ndarray = 1,
) -> list[np.ndarray]:
    """Remove the least important channels until the cost is within a limit.

    Channels of all groups compete; a group gives them up in steps that leave a multiple of
    ``round_to``. What the last step removed beyond the limit is given back, the most important
    first, as far as the limit allows. Channels removed before stay removed.

    Args:
        scores (list[np.ndarray]): Importance, float of shape ``[size]`` for each group; what is
            infinitely important stays.
        kept (list[np.ndarray]): bool of shape ``[size]``, the channels present now.
        cost (Cost): What is limited.
        limit (float): The most that may remain, in the unit of ``cost``.
        round_to (int | np.ndarray): Channels kept by a group are a multiple of it; one number
            for all, or int of shape ``[groups]``. Defaults to 1.

    Returns:
        list[np.ndarray]: bool of shape ``[size]`` for each group, the channels to keep.

    Raises:
        UnreachableTargetError: If no choice meets the limit.
    """
    counts = np.array([k.sum() for k in kept], dtype=np.int64)
    if cost(counts) <= limit:
        return [k.copy() for k in kept]
    round_to = np.broadcast_to(round_to, len(kept))
    floor = minimum_counts(np.array([len(k) for k in kept], dtype=np.int64), round_to)
    stay = [np.isposinf(s[k]).sum() for s, k in zip(scores, kept, strict=True)]
    stay = np.array(stay, dtype=np.int64)
    floor = np.minimum(counts, np.maximum(floor, -(-stay // round_to) * round_to))
    if cost(floor) > limit:
        infinite = f'; {stay.sum()} of them are infinitely important' if stay.any() else ''
        raise UnreachableTargetError(
            f'{limit:.0f} cannot be reached: {cost(floor)} remain when every group of channels '
            f'keeps the least it may{infinite}'
        )

    # For each group: its channels from the least important on, cut into steps.
    order, steps = [], []
    for g, (score, k) in enumerate(zip(scores, kept, strict=True)):
        present = np.flatnonzero(k)
        ranked = present[np.argsort(score[present], kind='stable')]
        order.append(ranked)
        ends = np.array([counts[g] - n for n in _counts_below(counts[g], floor[g], round_to[g])])
        if not len(ends):
            continue
        widths = np.diff(ends, prepend=0)
        sums = np.add.reduceat(score[ranked[: ends[-1]]].astype(np.float64), ends - widths)
        means = (sums / widths).tolist()
        steps += [(mean, g, *step) for mean, step in zip(means, enumerate(widths), strict=True)]
    steps.sort(key=lambda step: (step[0], step[2], step[1]))
    group_of = np.array([step[1] for step in steps])
    width = np.array([step[3] for step in steps])

    def after(number: int) -> np.ndarray:
        removed = np.bincount(group_of[:number], width[:number], minlength=len(kept))
        return counts - removed.astype(np.int64)

    low, high = 0, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(after(middle)) <= limit else (middle, high)
    left = after(high)
    _give_back(steps[:high], left, cost, limit)

    result = []
    for g, k in enumerate(kept):
        chosen = k.copy()
        chosen[order[g][: counts[g] - left[g]]] = False
        result.append(chosen)
    return result


def _counts_below(count: int, floor: int, round_to: int) -> range:
    """The numbers of channels that a group of ``count`` may come down to, descending."""
    return range((count - 1) // round_to * round_to, floor - 1, -round_to)


def _give_back(steps: list[tuple], left: np.ndarray, cost: Cost, limit: float) -> None:
    """Undo the steps that turn out not to be needed, in place.

    Within a group only the last step can be undone, so the first that does not fit ends it.
    """
    closed = set()
    for _, group, _, width in reversed(steps):
        if group in closed:
            continue
        left[group] += width
        if cost(left) > limit:
            left[group] -= width
            closed.add(group)
            if len(closed) == len(left):
                return
