# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A choice of options, what it costs in every resource, and the moves that improve it."""

from collections.abc import Sequence

import numpy as np

from .cost import CostTables

SWEEPS = 8
"""Rounds of best answers at a price, at most; five were the most that were seen."""
TINY = 1e-9
"""Share of the total value, or of a limit, below which a difference is rounding."""
EXCHANGES = 20
"""Exchanges for each group, at most: each raises the value, so that this stops rounding alone."""


class _Lookup:
    """Entries of several tables, at once, for a choice of options.

    Each table is flattened; its entry is where the options times the strides of its axes add up.

    Args:
        shapes (list): Groups of a table, and the options of each of them.
    """

    def __init__(self, shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
        width = max((len(groups) for groups, _ in shapes), default=0)
        self._groups = np.zeros((len(shapes), width), dtype=np.int64)
        self._strides = np.zeros((len(shapes), width), dtype=np.int64)
        self._starts = np.zeros(len(shapes), dtype=np.int64)
        end = 0
        for row, (groups, shape) in enumerate(shapes):
            self._groups[row, : len(groups)] = groups
            strides = np.cumprod((1, *shape[:0:-1]))[::-1] if groups else ()
            self._strides[row, : len(groups)] = strides
            self._starts[row] = end
            end += int(np.prod(shape))

    def places(self, choice: np.ndarray) -> np.ndarray:
        """Return the place of each table's entry, int ``[tables]``."""
        return self._starts + (choice[self._groups] * self._strides).sum(axis=1)


class Search:
    """A choice, what it costs as shares of the limits, and what changing a group would cost.

    Args:
        values (Sequence[np.ndarray]): What each option is worth, the smallest option first.
        costs (Sequence[CostTables]): What a choice costs of each resource.
        limits (Sequence[float]): The most that it may cost of each, above 0.

    Attributes:
        choice (np.ndarray): Index of the option of each group, int of shape ``[groups]``.
        cost (np.ndarray): What the choice costs, in shares of the limits, ``[resources]``.
        weights (np.ndarray): How much a share of each limit counts in one price, likewise.
    """

    def __init__(
        self,
        values: Sequence[np.ndarray],
        costs: Sequence[CostTables],
        limits: Sequence[float],
    ) -> None:
        total = sum(float(value[-1] - value[0]) for value in values) or 1.0
        self.lengths = np.array([len(value) for value in values], dtype=np.int64)
        self._groups = np.arange(len(values))
        self._options = np.arange(max(self.lengths, default=0))
        # Groups have different numbers of options; what a group does not have is worth -inf.
        self._values = np.full((len(values), len(self._options)), -np.inf)
        for group, value in enumerate(values):
            self._values[group, : len(value)] = np.asarray(value, dtype=np.float64) / total
        self._exists = self._options < self.lengths[:, None]
        self.weights = np.full(len(costs), 1 / len(costs))
        self._constant = np.array(
            [c.constant / limit for c, limit in zip(costs, limits, strict=True)]
        )
        tables = _stack(costs, limits)
        self._whole = _Lookup([(groups, table.shape[1:]) for groups, table in tables])
        flat = [table.reshape(len(costs), -1) for _, table in tables]
        self._entries = np.concatenate([np.zeros((len(costs), 0)), *flat], axis=1)
        # Of each group the tables that it is in: a row for each of its options.
        self._others: list[_Lookup] = []
        self._rows: list[np.ndarray] = []
        self.adjacent = np.zeros((len(values), len(values)), dtype=bool)
        for group, length in enumerate(self.lengths):
            own = []
            for groups, table in tables:
                if group in groups:
                    axis = groups.index(group)
                    others = groups[:axis] + groups[axis + 1 :]
                    own.append((others, np.moveaxis(table, axis + 1, 1)))
                    self.adjacent[group, list(others)] = True
            self._others.append(_Lookup([(others, table.shape[2:]) for others, table in own]))
            rows = [table.reshape(len(costs), length, -1) for _, table in own]
            self._rows.append(np.concatenate([np.zeros((len(costs), length, 0)), *rows], axis=2))
        # What a group's options cost beside the choice; a row is old once a neighbour moves.
        self._along = np.zeros((len(costs), *self._values.shape))
        self._old = np.ones(len(values), dtype=bool)

    @property
    def is_additive(self) -> bool:
        """Whether what a group costs depends on no other group."""
        return not self.adjacent.any()

    @property
    def fits(self) -> bool:
        """Whether the choice keeps every limit."""
        return bool((self.cost <= 1).all())

    def start(self, choice: np.ndarray) -> None:
        """Take a choice."""
        self.choice = np.array(choice)
        self._old[:] = True
        self._look_up()

    def _look_up(self) -> None:
        places = self._whole.places(self.choice)
        self.cost = self._constant + self._entries[:, places].sum(axis=1)

    def worth(self, choice: np.ndarray) -> float:
        """Return the value of a choice, as a share of the difference of largest and smallest."""
        return float(self._values[self._groups, choice].sum())

    def along(self, group: int) -> np.ndarray:
        """Return what the tables of a group cost, for its options, ``[resources, options]``."""
        length = self.lengths[group]
        if self._old[group]:
            places = self._others[group].places(self.choice)
            self._along[:, group, :length] = self._rows[group][:, :, places].sum(axis=2)
            self._old[group] = False
        return self._along[:, group, :length]

    def values_and_costs(self) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """Return values and costs of each group's options, and what no choice changes.

        They add up to those of any choice where :attr:`is_additive`.
        """
        groups = range(len(self.lengths))
        values = [self._values[g, : self.lengths[g]] for g in groups]
        return values, [self.along(g) for g in groups], self._constant

    def move(self, group: int, option: int) -> None:
        """Give a group another option."""
        row = self.along(group)
        self.cost = self.cost + row[:, option] - row[:, self.choice[group]]
        self.choice[group] = option
        self._old |= self.adjacent[group]

    def highest_price(self) -> float:
        """Return a price at which the smallest options are the best answers to themselves."""
        self.start(np.zeros(len(self.lengths), dtype=np.int64))
        gain, more = self._moves()
        price = self._priced(more)
        paid = self._exists & (price > 0)
        return 1.01 * float((gain[paid] / price[paid]).max(initial=0.0))

    def answer(self, price: float) -> None:
        """Let each group take its best option at a price, until nothing changes."""
        waiting = self.lengths > 1
        for _ in range(SWEEPS):
            changed = np.zeros_like(waiting)
            for group in np.flatnonzero(waiting):
                row = self.weights @ self.along(group)
                value = self._values[group, : self.lengths[group]]
                option = int(np.argmax(value - price * row))
                if option != self.choice[group]:
                    # Not move(): what it all costs is wanted once, at the end.
                    self.choice[group] = option
                    self._old |= self.adjacent[group]
                    changed |= self.adjacent[group]
            waiting = changed & (self.lengths > 1)
            if not waiting.any():
                break
        self._look_up()

    def reach(self) -> None:
        """Bring down what is above the limits by the moves that do so most.

        Where costs rise with every option the smallest ones are as low as it gets; measured ones
        may be lower elsewhere.
        """
        while len(self.lengths) and not self.fits:
            _, more = self._moves()
            over = np.maximum(self.cost[:, None, None] + more - 1, 0).sum(axis=0)
            over[~self._exists] = np.inf
            group, option = np.unravel_index(np.argmin(over), over.shape)
            if over[group, option] >= np.maximum(self.cost - 1, 0).sum() - TINY:
                return
            self.move(int(group), int(option))

    def lower(self, but: int | None = None) -> None:
        """Make groups smaller until the limits hold, the least loss for its cost first.

        Args:
            but (int, optional): A group that stays.
        """
        while not self.fits:
            gain, more = self._moves()
            down = self._options < self.choice[:, None]
            if but is not None:
                down[but] = False
            if not down.any():
                return
            # What saves of a resource that is not short helps nobody.
            short = self.cost > 1
            saved = -(self.weights * short / max(self.weights[short].sum(), TINY)) @ more.reshape(
                len(self.cost), -1
            )
            loss = -gain / np.maximum(saved.reshape(gain.shape), TINY)
            loss[~down] = np.inf
            group, option = np.unravel_index(np.argmin(loss), loss.shape)
            self.move(int(group), int(option))

    def fill(self, but: int | None = None) -> None:
        """Enlarge groups as long as the limits allow, the best gain for its cost first.

        Args:
            but (int, optional): A group that stays.
        """
        while True:
            gain, more = self._moves()
            price = self._priced(more)
            up = self._exists & (self._options > self.choice[:, None])
            if but is not None:
                up[but] = False
            up &= (self.cost[:, None, None] + more <= 1).all(axis=0)
            up &= (gain > 0) | ((gain == 0) & (price <= 0))
            if not up.any():
                return
            ratio = np.where(up, gain / np.maximum(price, TINY), -np.inf)
            group, option = np.unravel_index(np.argmax(ratio), ratio.shape)
            self.move(int(group), int(option))

    def _moves(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what each option brings and costs beside the present one.

        Returns:
            tuple[np.ndarray, np.ndarray]: ``[groups, options]`` and ``[resources, groups,
            options]``; of no meaning for options that a group does not have.
        """
        for group in np.flatnonzero(self._old):
            self.along(group)
        gain = self._values - self._values[self._groups, self.choice][:, None]
        more = self._along - self._along[:, self._groups, self.choice][:, :, None]
        return gain, more

    def _priced(self, costs: np.ndarray) -> np.ndarray:
        """Return costs ``[resources, ...]`` as one number each."""
        return np.tensordot(self.weights, costs, axes=1)

    def exchange(self, reach: int) -> None:
        """Make one group smaller for another one, as long as that is worth more.

        Args:
            reach (int): Options that a group goes up or down at once, at most.
        """
        for _ in range(EXCHANGES * int((self.lengths > 1).sum())):
            if self._exchange_once(reach):
                continue
            if reach == 1 or not self._exchange_with_several(reach):
                return

    def _exchange_once(self, reach: int) -> bool:
        """Do the best exchange of two groups; return whether there was one."""
        gains, costs = self._moves()
        away = self._options - self.choice[:, None]
        near = self._exists & (abs(away) <= reach)
        ups, downs = np.argwhere(near & (away > 0)), np.argwhere(near & (away < 0))
        gain = gains[tuple(ups.T)][:, None] + gains[tuple(downs.T)]
        better = (gain > TINY) & (ups[:, None, 0] != downs[:, 0])
        more = costs[:, ups[:, 0], ups[:, 1], None] + costs[:, None, downs[:, 0], downs[:, 1]]
        # Two that share a layer cost less together than one by one, so these are looked up. Only
        # where they are worth more than the best of the others.
        apart = ~self.adjacent[ups[:, None, 0], downs[:, 0]]
        fits = better & apart & (self.cost[:, None, None] + more <= 1).all(axis=0)
        best = np.where(fits, gain, -np.inf).max(initial=-np.inf)
        chosen = np.argwhere(fits & (gain == best))[:1].tolist()
        pairs = np.argwhere(better & ~apart & (gain > best))
        for i, j in pairs[np.argsort(-gain[tuple(pairs.T)], kind='stable')].tolist():
            if (self.cost + self._cost_of_both(ups[i], downs[j]) <= 1).all():
                chosen = [[i, j]]
                break
        for i, j in chosen:
            self.move(*downs[j].tolist())
            self.move(*ups[i].tolist())
            self.fill()
        return bool(chosen)

    def _exchange_with_several(self, reach: int) -> bool:
        """Change one group and let the others make up for it; return whether that helped."""
        self._moves()  # so that nothing is old in what is put back
        before, cost, along = self.choice.copy(), self.cost, self._along.copy()
        worth = self.worth(before)
        for group in np.flatnonzero(self.lengths > 1).tolist():
            for by in (n for n in range(-reach, reach + 1) if n):
                option = int(before[group]) + by
                if not 0 <= option < self.lengths[group]:
                    continue
                self.move(group, option)
                self.lower(group)
                self.fill(group if by < 0 else None)
                if self.fits and self.worth(self.choice) > worth + TINY:
                    return True
                self.choice, self.cost, self._along = before.copy(), cost, along.copy()
                self._old[:] = False
        return False

    def _cost_of_both(self, up: np.ndarray, down: np.ndarray) -> np.ndarray:
        """Return what it costs to enlarge one group and to make another one smaller."""
        row = self.along(down[0])
        saved = row[:, down[1]] - row[:, self.choice[down[0]]]
        other = self.choice.copy()
        other[down[0]] = down[1]
        places = self._others[up[0]].places(other)
        row = self._rows[up[0]][:, (up[1], self.choice[up[0]])][:, :, places].sum(axis=2)
        return saved + row[:, 0] - row[:, 1]


def _stack(
    costs: Sequence[CostTables], limits: Sequence[float]
) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Put the tables of all resources over the same groups into one array.

    Args:
        costs (Sequence[CostTables]): What a choice costs of each resource.
        limits (Sequence[float]): The most that it may cost of each.

    Returns:
        list: Groups, and shares of the limits, ``[resources, *options of each]``.
    """
    stacked: dict[tuple[int, ...], np.ndarray] = {}
    for resource, (cost, limit) in enumerate(zip(costs, limits, strict=True)):
        for groups, table in cost.tables:
            whole = stacked.setdefault(groups, np.zeros((len(costs), *np.shape(table))))
            whole[resource] += np.asarray(table) / limit
    return list(stacked.items())
