# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Choose how many channels each group keeps, for all groups at once.

What a layer costs depends on the channels that it reads and on those that it makes, so the groups
cannot be chosen one by one. With a price on a unit of cost, each can take its best answer to the
others: coordinate ascent on the Lagrangian. The price is found by bisection; of several resources
it is that of their weighted sum, and the weights follow how far each limit is used. Then what is
left of the budget is filled, and one group is made smaller for another as long as that is worth
more. Costs are looked up in tables, so that the limits hold exactly.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ..errors import did_you_mean
from .budget import Budget
from .cost import CostTables
from .joint_search import Search
from .knapsack import best_additive
from .selection import Choice, counts_below, select_by, select_channels

BISECTIONS = 24
"""Halvings of the interval of prices: the last one is 6e-8 of it."""
SMALL = 300
"""Options of all groups up to which a model is searched more thoroughly."""
STARTS = 8
"""Choices on either side of the limits that are improved; the best of them is taken."""
REACH = 3
"""Steps that one group gains or loses in an exchange, at most."""
ROUNDS = 4
"""Weights of several resources that are tried. With limits on FLOPs and parameters of YOLOX-s and
SSD300 one weight kept up to 0.3 % less; 6 kept no more."""
SHARPNESS = 4
"""Power of the share of its limit that a resource uses, by which its weight grows. With 8 the
weights swing, and a choice for SSD300 kept 0.2 % less."""
TIGHTENINGS = 16
"""Times that limits are drawn in because a cost was above what its tables say, at most."""
LEAST_SHARE = 1e-12
"""Share of a group's importance that counts in a logarithm where less is kept."""


def _sum_of(importance: np.ndarray) -> np.ndarray:
    return importance


def _log_of_share(importance: np.ndarray) -> np.ndarray:
    """Return the logarithm of each option's share of the largest one's importance."""
    whole = importance[-1]
    if not whole > 0:
        return np.zeros_like(importance)
    return np.log(np.maximum(importance / whole, LEAST_SHARE))


OBJECTIVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {'sum': _sum_of, 'log': _log_of_share}
"""What options are worth, the smallest first, by the importance that each keeps of a group."""


def select_jointly(
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    budget: Budget,
    round_to: int | np.ndarray = 1,
    least: np.ndarray | None = None,
    objective: str = 'sum',
) -> list[np.ndarray]:
    """Keep the channels that are worth the most within a budget.

    Unlike :func:`~mmdet_adasap.pruning.selection.select_channels` it weighs the importance of
    channels against what they cost. Within a group the least important go first.

    Args:
        scores (list[np.ndarray]): As for ``select_channels``, as are ``kept``, ``budget``,
            ``round_to`` and ``least``, the result and the errors.
        kept (list[np.ndarray]): See there.
        budget (Budget): See there.
        round_to (int | np.ndarray): See there. Defaults to 1.
        least (np.ndarray, optional): See there.
        objective (str): 'sum' for the most importance, or 'log' for the largest sum of
            logarithms of the share of its importance that each group keeps. The share is of what
            the group has now, and the logarithm makes deep cuts dear. Defaults to 'sum'.
    """

    def solver(choice: Choice) -> np.ndarray | None:
        return _counts_jointly(choice, objective)

    return select_by(solver, scores, kept, budget, round_to, least)


def _counts_jointly(choice: Choice, objective: str) -> np.ndarray | None:
    """Return how many channels of each group are worth the most within the budget."""
    options, values = [], []
    for g, order in enumerate(choice.ranked):
        below = counts_below(choice.counts[g], choice.fewest[g], choice.round_to[g])
        options.append(np.array([*reversed(below), choice.counts[g]]))
        kept = _importance_kept(choice.scores[g][order[::-1]], objective)
        values.append(OBJECTIVES[objective](kept[options[g]]))
    tables = choice.budget.tables(options)
    # Costs are whole numbers, their tables sums of floats.
    limits = np.array([np.floor(limit.most) + 0.25 for limit in choice.budget.limits])
    for _ in range(TIGHTENINGS):
        chosen = choose_jointly(values, tables, limits)
        if chosen is None:
            break
        counts = np.array([option[i] for option, i in zip(options, chosen, strict=True)])
        over = [limit.cost(counts) - limit.most for limit in choice.budget.limits]
        if max(over) <= 0:
            return counts
        # Where a cost rounds otherwise than its tables.
        limits -= 2 * np.maximum(over, 0)
    return choice.fewest if choice.budget.holds(choice.fewest) else None


def _importance_kept(scores: np.ndarray, objective: str) -> np.ndarray:
    """Return what the first channels add up to, for every number of them, ``[channels + 1]``.

    Args:
        scores (np.ndarray): Scores, the highest first.
        objective (str): What is to be made of them.
    """
    stays = np.isposinf(scores)
    # What stays in any case is worth nothing in a sum; in a share it is as good as any other.
    most = np.max(scores, where=~stays, initial=0.0) if objective == 'log' else 0.0
    scores = np.where(stays, most, scores)
    if objective == 'log':
        scores = np.maximum(scores, 0.0)  # a share below 0 has no logarithm
    return np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])


def choose_jointly(
    values: Sequence[np.ndarray], costs: Sequence[CostTables], limits: Sequence[float]
) -> np.ndarray | None:
    """Choose an option of each group: the largest sum of values whose costs are within limits.

    Where costs add up over groups it is the best choice, unless that would take too long.
    Elsewhere it is not proven to be; tools/benchmarks/solver.py says how far it is from it.

    Args:
        values (Sequence[np.ndarray]): What each option is worth, the smallest option first.
        costs (Sequence[CostTables]): What a choice costs of each resource. It should rise with
            every option; where it does not, the limits hold all the same.
        limits (Sequence[float]): The most that it may cost of each; nothing is within 0.

    Returns:
        np.ndarray | None: Index of the option of each group, int; None if no choice within the
        limits was found.
    """
    if min(limits) <= 0:
        return None
    search = Search(values, costs, limits)
    top = search.lengths - 1
    search.start(top)
    if search.fits:
        return top
    search.start(np.zeros_like(top))
    search.reach()
    if not search.fits:
        return None
    floor = search.choice.copy()
    starts, prices = _at_prices(search, (top, floor), ROUNDS if len(costs) > 1 else 1)
    # Large models have many ways to be about as good; small ones are searched more thoroughly.
    # Where costs add up, what is found here only has to be good enough to tell what is worse.
    is_small = sum(search.lengths) <= SMALL and not search.is_additive
    count, reach = (STARTS, REACH) if is_small else (len(prices), 1)
    below = sorted((c for fits, c in starts if fits), key=search.worth)
    # Of choices above the limit the cheapest is as good a start as the dearest of those below it.
    above = [c for fits, c in starts if not fits]
    found = [floor]
    for choice in (*below[-count:], *above[-count:]):
        search.start(choice)
        search.lower()
        if search.fits:
            search.fill()
            search.exchange(reach)
            found.append(search.choice.copy())
    best = max(found, key=search.worth)
    if search.is_additive:
        parts, rows, constant = search.values_and_costs()
        better = best_additive(parts, rows, 1 - constant, prices, search.worth(best))
        best = best if better is None else better
    return best


def _at_prices(
    search: Search, first: Sequence[np.ndarray], rounds: int
) -> tuple[list[tuple[bool, np.ndarray]], list[np.ndarray]]:
    """Look for choices that are best answers at a price, near the limits.

    Args:
        search (Search): The costs; left with weights that suit the limits.
        first (Sequence[np.ndarray]): Choices to begin with.
        rounds (int): Weights of the resources that are tried.

    Returns:
        tuple: Choices with whether they are within the limits, in the order of their finding; and
        a price of every resource for each round.
    """
    starts: dict[tuple[bool, bytes], np.ndarray] = {}
    prices = []
    for last in reversed(range(rounds)):
        highest = search.highest_price()
        used = np.zeros(len(search.weights))
        for choice in first:
            below, above = 0.0, highest
            search.start(choice)
            for _ in range(BISECTIONS):
                price = (below + above) / 2
                search.answer(price)
                choice = search.choice.copy()
                fits = search.fits
                below, above = (below, price) if fits else (price, above)
                starts[fits, choice.tobytes()] = choice
            used += search.cost
        prices.append(price * search.weights)
        if last:
            weights = search.weights * (used / used.max()) ** SHARPNESS
            search.weights = weights / weights.sum()
    return [(fits, choice) for (fits, _), choice in starts.items()], prices


SOLVERS = {'ranked': select_channels, 'joint': select_jointly}
"""Ways to choose the channels that a budget leaves, by name."""


def check_solver(name: object) -> None:
    """Raise ValueError if there is no such solver."""
    if not isinstance(name, str) or name not in SOLVERS:
        raise ValueError(
            f"solver={name!r} is unknown; use 'ranked', by importance alone, or 'joint', by "
            f'importance and cost{did_you_mean(name, SOLVERS)}'
        )


def check_objective(name: object, solver: str) -> None:
    """Raise ValueError if there is no such objective, or the solver does not ask for one.

    Args:
        name (object): What was written.
        solver (str): The solver beside it.
    """
    if not isinstance(name, str) or name not in OBJECTIVES:
        raise ValueError(
            f"objective={name!r} is unknown; use 'sum', for the most importance in all, or 'log', "
            f'which makes deep cuts of a layer dear{did_you_mean(name, OBJECTIVES)}'
        )
    if name != 'sum' and solver != 'joint':
        raise ValueError(
            f"objective={name!r} is for solver='joint', and solver={solver!r} has none; write "
            f"solver='joint' beside it"
        )


def solver_of(name: str, objective: str) -> Callable[..., list[np.ndarray]]:
    """Return the function that selects channels.

    Args:
        name (str): One of :data:`SOLVERS`.
        objective (str): One of ``OBJECTIVES``, 'sum' or 'log'.

    Returns:
        Callable: Takes the arguments of :func:`~mmdet_adasap.pruning.selection.select_channels`.

    Raises:
        ValueError: If there is no such solver or objective, or they do not go together.
    """
    check_solver(name)
    check_objective(objective, name)
    return SOLVERS[name] if name == 'ranked' else partial(SOLVERS[name], objective=objective)
