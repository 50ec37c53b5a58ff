# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a target means for a model: fractions of a dense model as numbers of its costs."""

import math
from collections.abc import Mapping

import numpy as np

from ..errors import LatencyTableError, StructureError
from .budget import Budget
from .cost import Cost
from .groups import PrunableChannels
from .latency_cost import LatencyCost
from .target import Target, is_fraction

MISFIT = 0.1
"""How far the formula of a latency may be from a network that was timed, without a word: 95 of 100
predictions are to be that good."""
LEAST_SHARE = 1e-3
"""Share of the dense latency that any network is taken to need, where a correction says less."""


class Limits:
    """The costs of a model, those of the dense one, and the limits that a target sets.

    Args:
        channels (PrunableChannels): The channels of the model as it is.
        target (Target): What is to remain of the dense model.
        base (Mapping, optional): The structure that the model was cut to before.
        steps (np.ndarray, optional): In which groups shrink, int of shape ``[groups]``.

    Raises:
        ValueError: If a model that was cut before has a target of latency, or a target in
            milliseconds a table that has not timed the network as a whole.
        StructureError: If ``base`` does not say what the dense model was.
        LatencyTableError: If the table lacks a layer.

    Attributes:
        costs (dict[str, Cost | LatencyCost]): Of parameters, FLOPs and, with a table, latency.
        dense (dict[str, int]): The same of the dense model, latency in nanoseconds.
        fractions (dict[str, float]): Resource to the fraction that the target leaves of it.
        correction (float): What the table says a cut saves of the dense time, over what it saves;
            a network that was timed sets it, since a table does not know all of one. The line goes
            through the dense network, of which table and clock say the same.
    """

    def __init__(
        self,
        channels: PrunableChannels,
        target: Target,
        base: Mapping | None = None,
        steps: np.ndarray | None = None,
    ) -> None:
        self.target = target
        self.costs: dict[str, Cost | LatencyCost] = {
            'params': channels.params,
            'flops': channels.flops,
        }
        if target.table is not None:
            if base is not None:
                raise ValueError(
                    f'{target}: a table times the layers of a dense model, and this one was cut '
                    f'before; limit flops instead, or start from the dense checkpoint'
                )
            self.costs['latency'] = LatencyCost(channels, target.table, steps)
            self._check_unit()
        self.dense = {r: cost(channels.group_sizes) for r, cost in self.costs.items()}
        if self.dense.get('latency', 1) < 1:
            raise LatencyTableError(
                'target.table: by it the dense network takes no time; measure it again'
            )
        if base is not None:
            self.dense = _dense_before(base, self.dense)
        self.fractions = {r: target.fraction(r, self.dense) for r in target.resources}
        self.correction = 1.0

    def _check_unit(self) -> None:
        """Raise ValueError if milliseconds are wanted, and those of the network are not known."""
        if self.target.milliseconds is not None and not self.costs['latency'].has_rest:
            raise ValueError(
                f'{self.target}: the table has timed the layers alone, and not this network as a '
                f'whole, which milliseconds are of; make one with adasap latency, or write a '
                f'fraction, as latency=0.6'
            )

    def limit(self, resource: str, fraction: float) -> float:
        """Return what a fraction of the dense model is, in its unit."""
        # 0.55 * 100 is 55.00000000000001, and 0.29 * 100 is 28.999999999999996, below a model of
        # 29 parameters. 1e-14 is some 50 roundings of float64.
        if resource == 'latency':
            fraction = self.predicted_at(fraction)
        limit = fraction * self.dense[resource]
        return round(limit) if math.isclose(limit, round(limit), rel_tol=1e-14) else limit

    def predicted_at(self, fraction: float) -> float:
        """Return the share of the dense latency that the table gives a network of a true share."""
        return 1 - (1 - fraction) * self.correction

    def predicted(self, counts: np.ndarray) -> float:
        """Return the share of the dense latency that the table gives kept channels."""
        return self.costs['latency'](counts) / self.dense['latency']

    def budget(self, fractions: Mapping[str, float]) -> Budget:
        """Return the limits that hold when these fractions of the dense model remain."""
        return Budget([(self.costs[r], self.limit(r, f), r) for r, f in fractions.items()])

    def left(self, resource: str, counts: np.ndarray) -> float:
        """Return the fraction of the dense model that kept channels leave of a resource.

        Of latency, what the clock would say as far as it has corrected the table.
        """
        return self.share_of(resource, self.costs[resource](counts))

    def share_of(self, resource: str, amount: float) -> float:
        """Return what an amount is of the dense model, as :meth:`left` does for kept channels.

        Args:
            resource (str): 'params', 'flops' or 'latency'.
            amount (float): In its unit; of latency nanoseconds by the table.
        """
        share = amount / self.dense[resource]
        if resource != 'latency':
            return share
        return max(1 - (1 - share) / self.correction, LEAST_SHARE)

    def latency_report(self, counts: np.ndarray, measured: float | None) -> dict:
        """Return what a choice takes on the device of the table, as plain data.

        Args:
            counts (np.ndarray): Channels that each group keeps.
            measured (float, optional): Share of the dense time, timed.

        Returns:
            dict: 'table' (its digest), 'device', 'dense_ms', 'predicted_ms' and 'measured_ms',
            which is None where nothing was timed.
        """
        dense = self.dense['latency'] / 1e6
        return {
            'table': self.target.table.digest,
            'device': self.target.table.describe(),
            'dense_ms': dense,
            'predicted_ms': self.costs['latency'](counts) / 1e6,
            'measured_ms': None if measured is None else measured * dense,
        }

    def notices(self) -> list[str]:
        """Return what a user has to know of predicted latencies, a line each."""
        latency = self.costs.get('latency')
        if latency is None:
            return []
        if not latency.has_rest:
            return [
                'the table has not timed this network as a whole, so its milliseconds are of the '
                'layers alone: make one of this config with adasap latency to know the rest'
            ]
        if abs(latency.misfit) > MISFIT:
            return [
                f'by the table a network that it has timed as a whole takes '
                f'{1 + latency.misfit:.2f} times what it took: predictions will be off as far'
            ]
        return []

    def by_resource(self, fractions: float | Mapping[str, float]) -> Mapping[str, float]:
        """Return fractions by resource; a number is of the target's only one.

        Raises:
            ValueError: If they are no fractions.
        """
        if not isinstance(fractions, Mapping):
            if len(self.fractions) > 1:
                raise ValueError(
                    f'fraction={fractions!r} is one number, and {self.target} limits '
                    f'{" and ".join(self.fractions)}: write a dict'
                )
            fractions = {next(iter(self.fractions)): fractions}
        for resource, fraction in fractions.items():
            if resource not in self.costs:
                raise ValueError(
                    f'fractions={fractions!r}: {resource} is none of {list(self.costs)}'
                )
            if not is_fraction(fraction):
                raise ValueError(f'fraction={fraction!r} must be above 0 and at most 1')
        return fractions


def latency_text(report: Mapping) -> str:
    """Return what a table and a clock say of a network, in words.

    Args:
        report (Mapping): As :meth:`Limits.latency_report` returns it.
    """
    text = f'{report["predicted_ms"]:.3g} ms by the table'
    if report['measured_ms'] is not None:
        text += f', {report["measured_ms"]:.3g} ms measured'
    return f'{text}, of {report["dense_ms"]:.3g} ms dense ({report["device"]})'


def _dense_before(base: Mapping, present: dict[str, int]) -> dict[str, int]:
    """Return what the dense model cost of which a pruned one is the rest.

    Args:
        base (Mapping): The structure that the model was cut to.
        present (dict[str, int]): What it costs as it is.
    """
    if not {'params', 'flops'} <= base['reached'].keys() or 'params' not in base['dense']:
        raise StructureError(
            'the structure that the model was cut to does not say what it reached, so '
            'it cannot be pruned again relative to the dense model'
        )
    # FLOPs depend on the input, which may be another one than that of the first cut.
    flops = round(present['flops'] / base['reached']['flops'])
    return {'params': base['dense']['params'], 'flops': flops}
