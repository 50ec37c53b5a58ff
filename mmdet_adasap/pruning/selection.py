# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Select the channels to remove so that a budget holds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..errors import UnreachableTargetError
from .budget import Budget, Excess


class _Step(NamedTuple):
    """Channels that a group gives up at once."""

    importance: float
    group: int
    number: int
    channels: int


def minimum_counts(
    sizes: np.ndarray, round_to: int | np.ndarray, max_pruning_ratio: float = 1.0
) -> np.ndarray:
    """Return the fewest channels that each group may keep.

    That is one step, or the steps that hold the share which may not be pruned; a group smaller
    than that loses none.

    Args:
        sizes (np.ndarray): Channels of each group, int of shape ``[groups]``.
        round_to (int | np.ndarray): The step, for all or for each group.
        max_pruning_ratio (float): The largest share of its channels that a group may lose.
            Defaults to 1.0.

    Returns:
        np.ndarray: int of shape ``[groups]``.
    """
    # (1 - 0.9) * 10 is 0.9999999999999998 and (1 - 0.7) * 10 is 3.0000000000000004, which would
    # round up to 4 channels where 3 are meant.
    share = np.ceil(np.round((1 - max_pruning_ratio) * sizes, 9)).astype(np.int64)
    steps = np.maximum(-(-share // round_to), 1)
    return np.minimum(sizes, steps * round_to)


def select_channels(
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    budget: Budget,
    round_to: int | np.ndarray = 1,
    least: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Remove the least important channels until a budget holds.

    Channels of all groups compete; a group gives them up in steps that leave a multiple of
    ``round_to``. What the last step removed beyond the budget is given back, the most important
    first, as far as the budget allows. Channels removed before stay removed.

    Args:
        scores (list[np.ndarray]): Importance, float of shape ``[size]`` for each group; channels
            with a score of inf stay.
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group, the channels present now.
        budget (Budget): What may remain.
        round_to (int | np.ndarray): Channels kept by a group are a multiple of it; one number
            for all, or int of shape ``[groups]``. Defaults to 1.
        least (np.ndarray, optional): The fewest channels that each group may keep, int of shape
            ``[groups]``. Defaults to one step, see :func:`minimum_counts`.

    Returns:
        list[np.ndarray]: bool of shape ``[size]`` for each group, the channels to keep.

    Raises:
        UnreachableTargetError: If no choice within the budget was found; there is none if no cost
            rises where channels go.
    """
    return select_by(_counts_by_rank, scores, kept, budget, round_to, least)


class Choice(NamedTuple):
    """What a solver chooses from: how many channels each group may keep, and at what cost.

    Args:
        scores (list[np.ndarray]): Importance, float of shape ``[size]`` for each group.
        ranked (list[np.ndarray]): Present channels of each group, the least important first.
        counts (np.ndarray): How many are present, int of shape ``[groups]``.
        fewest (np.ndarray): How many have to stay, likewise.
        round_to (np.ndarray): The step of each group, likewise.
        budget (Budget): What may remain.
    """

    scores: list[np.ndarray]
    ranked: list[np.ndarray]
    counts: np.ndarray
    fewest: np.ndarray
    round_to: np.ndarray
    budget: Budget


def select_by(
    solver: Callable[[Choice], np.ndarray | None],
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    budget: Budget,
    round_to: int | np.ndarray,
    least: np.ndarray | None,
) -> list[np.ndarray]:
    """Keep the most important channels of each group, as many as a solver says.

    The solver takes a :class:`Choice` and returns how many channels each group keeps, int of shape
    ``[groups]``, or None if it found none within the budget. The other arguments, errors and the
    result are those of :func:`select_channels`.
    """
    counts = np.array([k.sum() for k in kept], dtype=np.int64)
    if budget.holds(counts):
        return [k.copy() for k in kept]
    round_to = np.broadcast_to(round_to, len(kept))
    fewest = _fewest(scores, kept, counts, round_to, least)
    ranked = _ranking(scores, kept)
    left = solver(Choice(scores, ranked, counts, fewest, round_to, budget))
    if left is None:
        raise _out_of_reach(budget.excess(fewest), int(_infinite(scores, kept).sum()))
    return _keep_most_important(kept, ranked, counts - left)


def _counts_by_rank(choice: Choice) -> np.ndarray | None:
    """Return how many channels are left if the least important of all groups go first."""
    scores, ranked, counts, fewest, round_to, budget = choice
    steps = _steps(scores, ranked, counts, fewest, round_to)
    group = np.array([step.group for step in steps], dtype=np.int64)
    channels = np.array([step.channels for step in steps], dtype=np.int64)

    def counts_after(number: int) -> np.ndarray:
        removed = np.bincount(group[:number], channels[:number], minlength=len(counts))
        return counts - removed.astype(np.int64)

    low, high = 0, len(steps)
    # A measured cost may be lower before the last steps than after them.
    while high and not budget.holds(counts_after(high)):
        high -= 1
    if not high:
        return None
    # The fewest steps within the budget. More steps rarely cost more, so bisection finds them; it
    # ends where the budget holds in any case.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if budget.holds(counts_after(middle)) else (middle, high)
    left = counts_after(high)
    _give_back(steps[:high], left, budget)
    return left


def _fewest(
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    counts: np.ndarray,
    round_to: np.ndarray,
    least: np.ndarray | None,
) -> np.ndarray:
    """Return the fewest channels that each group may come down to, with those that must stay.

    The arguments are those of :func:`select_channels`, and how many channels are present.

    Returns:
        np.ndarray: int of shape ``[groups]``.
    """
    if least is None:
        least = minimum_counts(np.array([len(k) for k in kept], dtype=np.int64), round_to)
    stay = np.maximum(least, _infinite(scores, kept))
    return np.minimum(counts, -(-stay // round_to) * round_to)


def _out_of_reach(excess: list[Excess], stay: int) -> UnreachableTargetError:
    """Return the error for a budget that does not hold when every group keeps the least.

    Args:
        excess (list[Excess]): The limits that do not hold then.
        stay (int): Channels with an infinite score.
    """
    limits = ' and '.join(f'{name} {most:.0f}'.lstrip() for name, _, most in excess)
    costs = ' and '.join(f'{cost:.0f}' for _, cost, _ in excess)
    what = f'; {stay} channels have an infinite score and stay' if stay else ''
    return UnreachableTargetError(
        f'{limits} cannot be reached: {costs} remain when every group of channels keeps the '
        f'least it may{what}',
        excess[0].cost,
        excess[0].name,
    )


def _ranking(scores: list[np.ndarray], kept: list[np.ndarray]) -> list[np.ndarray]:
    """Return the channels that are present in each group, the least important first."""
    ranked = []
    for score, k in zip(scores, kept, strict=True):
        present = np.flatnonzero(k)
        # Stable: of channels with equal scores the first goes, on every machine.
        ranked.append(present[np.argsort(score[present], kind='stable')])
    return ranked


def _keep_most_important(
    kept: list[np.ndarray], ranked: list[np.ndarray], removed: np.ndarray
) -> list[np.ndarray]:
    """Return what is kept when each group loses so many of its ranked channels."""
    selected = []
    for k, order, number in zip(kept, ranked, removed, strict=True):
        keep = k.copy()
        keep[order[:number]] = False
        selected.append(keep)
    return selected


def _infinite(scores: list[np.ndarray], kept: list[np.ndarray]) -> np.ndarray:
    """Return how many channels of each group have a score of inf, int of shape ``[groups]``."""
    stay = [np.isposinf(s[k]).sum() for s, k in zip(scores, kept, strict=True)]
    return np.array(stay, dtype=np.int64)


def _steps(
    scores: list[np.ndarray],
    ranked: list[np.ndarray],
    counts: np.ndarray,
    fewest: np.ndarray,
    round_to: np.ndarray,
) -> list[_Step]:
    """Cut the ranked channels of all groups into steps, the least important step first."""
    steps = []
    for g, (score, order) in enumerate(zip(scores, ranked, strict=True)):
        ends = np.array([counts[g] - n for n in counts_below(counts[g], fewest[g], round_to[g])])
        if not len(ends):
            continue
        channels = np.diff(ends, prepend=0)
        # Sums over slices of the ranked scores, which begin where the last step ended.
        sums = np.add.reduceat(score[order[: ends[-1]]].astype(np.float64), ends - channels)
        means = (sums / channels).tolist()
        steps += [
            _Step(mean, g, *one) for mean, one in zip(means, enumerate(channels), strict=True)
        ]
    # Ties go by number and then group, so that equal groups shrink in turn.
    return sorted(steps, key=lambda step: (step.importance, step.number, step.group))


def counts_below(count: int, fewest: int, round_to: int) -> range:
    """Return the channels that a group of ``count`` may come down to, descending."""
    return range((count - 1) // round_to * round_to, fewest - 1, -round_to)


def _give_back(steps: list[_Step], left: np.ndarray, budget: Budget) -> None:
    """Undo the steps that turn out not to be needed, in place.

    The last step may have overshot by a wide layer where a narrow one would have been enough.
    Within a group only the last step can be undone, so the first that does not fit ends it.

    Args:
        steps (list[_Step]): The steps done, the least important first.
        left (np.ndarray): Channels left, int of shape ``[groups]``; changed in place.
        budget (Budget): What may remain.
    """
    closed = set()
    for step in reversed(steps):
        if step.group in closed:
            continue
        left[step.group] += step.channels
        if not budget.holds(left):
            left[step.group] -= step.channels
            closed.add(step.group)
            if len(closed) == len(left):
                return
