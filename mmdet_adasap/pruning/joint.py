# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Choose how many channels each group keeps, for all groups at once.

What a layer costs depends on the channels that it reads and on those that it makes, so the groups
cannot be chosen one by one. With a price on a unit of cost, each can take its best answer to the
others: coordinate ascent on the Lagrangian. The price is found by bisection. Then what is left of
the budget is filled, and one group is made smaller for another as long as that is worth more.
Costs are looked up in tables, so that the limit holds exactly.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import did_you_mean
from .cost import Cost, CostTables
from .selection import Choice, counts_below, select_by, select_channels

SWEEPS = 8
"""Rounds of best answers at a price, at most; five were the most that were seen."""
BISECTIONS = 24
"""Halvings of the interval of prices: the last one is 6e-8 of it."""
SMALL = 300
"""Options of all groups up to which a model is searched more thoroughly."""
STARTS = 8
"""Choices on either side of the limit that are improved; the best of them is taken."""
REACH = 3
"""Steps that one group gains or loses in an exchange, at most."""
TINY = 1e-9
"""Share of the total value below which a gain is rounding."""


def select_jointly(
    scores: list[np.ndarray],
    kept: list[np.ndarray],
    cost: Cost,
    limit: float,
    round_to: int | np.ndarray = 1,
    least: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Keep the channels whose importance adds up to the most within a limit.

    Unlike :func:`~mmdet_adasap.pruning.selection.select_channels` it weighs the importance of
    channels against what they cost. Within a group the least important go first.

    Arguments, result and errors are those of ``select_channels``.
    """
    return select_by(_counts_jointly, scores, kept, cost, limit, round_to, least)


def _counts_jointly(choice: Choice) -> np.ndarray:
    """Return how many channels of each group are worth the most within the limit."""
    options, values = [], []
    for g, order in enumerate(choice.ranked):
        below = counts_below(choice.counts[g], choice.fewest[g], choice.round_to[g])
        options.append(np.array([*reversed(below), choice.counts[g]]))
        # What stays in any case is worth nothing in the comparison.
        scores = choice.scores[g]
        finite = np.where(np.isposinf(scores), 0.0, scores)[order[::-1]]
        values.append(np.concatenate([[0.0], np.cumsum(finite, dtype=np.float64)])[options[g]])
    # Costs are whole numbers, their tables sums of floats.
    tables = choice.cost.tables(options)
    chosen = choose_jointly(values, tables, np.floor(choice.limit) + 0.25)
    return np.array([option[i] for option, i in zip(options, chosen, strict=True)])


def choose_jointly(
    values: Sequence[np.ndarray], costs: CostTables, limit: float
) -> np.ndarray | None:
    """Choose an option of each group: the largest sum of values whose cost is within a limit.

    Not proven to be the best choice; tools/benchmarks/solver.py says how far it is from it.

    Args:
        values (Sequence[np.ndarray]): What each option is worth, the smallest option first.
        costs (CostTables): What a choice costs, rising with every option.
        limit (float): The most that it may cost.

    Returns:
        np.ndarray | None: Index of the option of each group, int; None if the smallest ones cost
        more than the limit.
    """
    search = _Search(values, costs)
    floor = np.zeros(len(values), dtype=np.int64)
    top = np.array([len(value) - 1 for value in values])
    if search.start(floor) > limit:
        return None
    if search.start(top) <= limit:
        return top
    # Of choices above the limit the cheapest is as good a start as the dearest of those below it.
    starts = {}
    highest = search.highest_price()
    for choice in (top, floor):
        below, above = 0.0, highest
        for _ in range(BISECTIONS):
            price = (below + above) / 2
            search.start(choice)
            search.answer(price)
            choice = search.choice.copy()
            fits = search.cost <= limit
            below, above = (below, price) if fits else (price, above)
            starts[fits, choice.tobytes()] = choice
    # Large models have many ways to be about as good; small ones are searched more thoroughly.
    count, reach = (STARTS, REACH) if sum(map(len, values)) <= SMALL else (1, 1)
    below = sorted((c for (fits, _), c in starts.items() if fits), key=search.worth)
    above = [c for (fits, _), c in starts.items() if not fits]
    found = []
    for choice in (*below[-count:], *above[-count:]):
        search.start(choice)
        search.lower(limit)
        search.fill(limit)
        search.exchange(limit, reach)
        found.append(search.choice.copy())
    return max(found, key=search.worth)


class _Lookup:
    """Entries of several tables, at once, for a choice of options.

    Each table is flattened; its entry is where the options times the strides of its axes add up.

    Args:
        tables (list): Groups and an array with an axis for each of them.
    """

    def __init__(self, tables: list[tuple[tuple[int, ...], np.ndarray]]) -> None:
        width = max((len(groups) for groups, _ in tables), default=0)
        self._groups = np.zeros((len(tables), width), dtype=np.int64)
        self._strides = np.zeros((len(tables), width), dtype=np.int64)
        self.starts = np.zeros(len(tables), dtype=np.int64)
        end = 0
        for row, (groups, table) in enumerate(tables):
            self._groups[row, : len(groups)] = groups
            strides = np.cumprod((1, *table.shape[:0:-1]))[::-1] if groups else ()
            self._strides[row, : len(groups)] = strides
            self.starts[row] = end
            end += table.size

    def places(self, choice: np.ndarray) -> np.ndarray:
        """Return the place of each table's entry, int ``[tables]``."""
        return self.starts + (choice[self._groups] * self._strides).sum(axis=1)


class _Search:
    """A choice, what it costs, and what changing one group would cost."""

    def __init__(self, values: Sequence[np.ndarray], costs: CostTables) -> None:
        total = sum(float(value[-1] - value[0]) for value in values) or 1.0
        self.values = [np.asarray(value, dtype=np.float64) / total for value in values]
        self._constant = costs.constant
        self._whole = _Lookup(costs.tables)
        self._entries = np.concatenate([[], *(table.ravel() for _, table in costs.tables)])
        # Of each group the tables that it is in: a row for each of its options.
        self._others: list[_Lookup] = []
        self._rows: list[np.ndarray] = []
        self.neighbours: list[list[int]] = []
        for group, value in enumerate(self.values):
            own = []
            for groups, table in costs.tables:
                if group in groups:
                    axis = groups.index(group)
                    others = groups[:axis] + groups[axis + 1 :]
                    own.append((others, np.moveaxis(table, axis, 0)))
            self._others.append(_Lookup([(others, table[0]) for others, table in own]))
            rows = [table.reshape(len(value), -1) for _, table in own]
            self._rows.append(np.concatenate([np.zeros((len(value), 0)), *rows], axis=1))
            self.neighbours.append(sorted({other for others, _ in own for other in others}))
        self.adjacent = np.zeros((len(values), len(values)), dtype=bool)
        for group, others in enumerate(self.neighbours):
            self.adjacent[group, others] = True

    def start(self, choice: np.ndarray) -> float:
        """Take a choice; return what it costs."""
        self.choice = np.array(choice)
        self.cost = self._constant + float(self._entries[self._whole.places(self.choice)].sum())
        return self.cost

    def worth(self, choice: np.ndarray) -> float:
        return sum(float(value[i]) for value, i in zip(self.values, choice, strict=True))

    def along(self, group: int) -> np.ndarray:
        """Return what the tables of a group cost, for each of its options."""
        return self._rows[group][:, self._others[group].places(self.choice)].sum(axis=1)

    def move(self, group: int, option: int, row: np.ndarray) -> None:
        self.cost += float(row[option] - row[self.choice[group]])
        self.choice[group] = option

    def highest_price(self) -> float:
        """Return a price at which the smallest options are the best answers to themselves."""
        self.start(np.zeros(len(self.values), dtype=np.int64))
        price = 0.0
        for group, value in enumerate(self.values):
            row = self.along(group)
            more = row[1:] - row[0]
            gain = value[1:] - value[0]
            paid = more > 0
            if paid.any():
                price = max(price, float((gain[paid] / more[paid]).max()))
        return price * 1.01

    def answer(self, price: float) -> None:
        """Let each group take its best option at a price, until nothing changes."""
        waiting = set(range(len(self.values)))
        for _ in range(SWEEPS):
            changed: set[int] = set()
            for group in sorted(waiting):
                if len(self.values[group]) < 2:
                    continue
                row = self.along(group)
                option = int(np.argmax(self.values[group] - price * row))
                if option != self.choice[group]:
                    self.move(group, option, row)
                    changed.update(self.neighbours[group])
            waiting = changed
            if not waiting:
                return

    def lower(self, limit: float, but: int | None = None) -> None:
        """Make groups smaller until the limit holds, the least loss for its cost first.

        Args:
            limit (float): The limit.
            but (int, optional): A group that stays.
        """
        while self.cost > limit:
            steps = {
                g: step
                for g in range(len(self.values))
                if g != but and (step := self._step(g, -1)) is not None
            }
            if not steps:
                return
            group = min(steps, key=lambda g: -steps[g][0] / max(-steps[g][1], TINY))
            self.move(group, self.choice[group] - 1, self.along(group))

    def fill(self, limit: float, but: int | None = None) -> None:
        """Enlarge groups as long as the limit allows, the best gain for its cost first.

        Args:
            limit (float): The limit.
            but (int, optional): A group that stays.
        """
        open_groups = {g for g, value in enumerate(self.values) if len(value) > 1 and g != but}
        steps: dict[int, tuple[float, float]] = {}
        stale = set(open_groups)
        while True:
            for group in stale & open_groups:
                steps.pop(group, None)
                up = self._step(group, 1)
                if up is not None:
                    steps[group] = up
            fits = [
                (gain / max(more, TINY), group)
                for group, (gain, more) in steps.items()
                if self.cost + more <= limit and (gain > 0 or more <= 0)
            ]
            if not fits:
                return
            _, group = max(fits)
            self.move(group, self.choice[group] + 1, self.along(group))
            stale = {group, *self.neighbours[group]}

    def _step(self, group: int, by: int) -> tuple[float, float] | None:
        """Return what one option more or less brings and costs; None if there is none."""
        now = self.choice[group]
        if not 0 <= now + by < len(self.values[group]):
            return None
        row = self.along(group)
        value = self.values[group]
        return float(value[now + by] - value[now]), float(row[now + by] - row[now])

    def exchange(self, limit: float, reach: int) -> None:
        """Make one group smaller for another one, as long as that is worth more."""
        groups = [g for g, value in enumerate(self.values) if len(value) > 1]
        # Each exchange raises the value, so this ends; the bound is for rounding.
        for _ in range(20 * len(groups)):
            if self._exchange_once(groups, limit, reach):
                continue
            if reach == 1 or not self._exchange_with_several(groups, limit, reach):
                return

    def _exchange_once(self, groups: list[int], limit: float, reach: int) -> bool:
        """Do the best exchange of two groups; return whether there was one."""
        ups, downs = [], []
        for group in groups:
            row, now, last = self.along(group), self.choice[group], len(self.values[group]) - 1
            gain, more = self.values[group] - self.values[group][now], row - row[now]
            for option in range(max(now - reach, 0), min(now + reach, last) + 1):
                if option != now:
                    move = (group, option, gain[option], more[option])
                    (ups if option > now else downs).append(move)
        if not ups or not downs:
            return False
        up, down = (np.array(moves)[:, (0, 2, 3)] for moves in (ups, downs))
        gain = up[:, None, 1] + down[:, 1]
        more = up[:, None, 2] + down[:, 2]
        better = (gain > TINY) & (up[:, None, 0] != down[:, 0])
        # Two that share a layer cost less together than one by one, so these are looked up. Only
        # where they are worth more than the best of the others.
        apart = ~self.adjacent[up[:, None, 0].astype(int), down[:, 0].astype(int)]
        fits = better & apart & (self.cost + more <= limit)
        best = np.where(fits, gain, -np.inf).max()
        chosen = np.argwhere(fits & (gain == best))[:1].tolist() if fits.any() else []
        pairs = np.argwhere(better & ~apart & (gain > best))
        for i, j in pairs[np.argsort(-gain[tuple(pairs.T)], kind='stable')].tolist():
            if self.cost + self._cost_of_both(ups[i], downs[j]) <= limit:
                chosen = [[i, j]]
                break
        for i, j in chosen:
            for group, option, *_ in (downs[j], ups[i]):
                self.move(group, option, self.along(group))
            self.fill(limit)
        return bool(chosen)

    def _exchange_with_several(self, groups: list[int], limit: float, reach: int) -> bool:
        """Change one group and let the others make up for it; return whether that helped."""
        before, cost = self.choice.copy(), self.cost
        worth = self.worth(before)
        for group in groups:
            for by in (n for n in range(-reach, reach + 1) if n):
                option = before[group] + by
                if not 0 <= option < len(self.values[group]):
                    continue
                self.move(group, option, self.along(group))
                self.lower(limit, group)
                self.fill(limit, group if by < 0 else None)
                if self.cost <= limit and self.worth(self.choice) > worth + TINY:
                    return True
                self.choice, self.cost = before.copy(), cost
        return False

    def _cost_of_both(self, up: tuple, down: tuple) -> float:
        """Return what it costs to enlarge one group and to make another one smaller."""
        before = self.choice[down[0]]
        self.choice[down[0]] = down[1]
        row = self.along(up[0])
        self.choice[down[0]] = before
        return float(down[3] + row[up[1]] - row[self.choice[up[0]]])


SOLVERS = {'ranked': select_channels, 'joint': select_jointly}
"""Ways to choose the channels that a budget leaves, by name."""


def check_solver(name: object) -> None:
    """Raise ValueError if there is no such solver."""
    if not isinstance(name, str) or name not in SOLVERS:
        raise ValueError(
            f"solver={name!r} is unknown; use 'ranked', by importance alone, or 'joint', by "
            f'importance and cost{did_you_mean(name, SOLVERS)}'
        )
