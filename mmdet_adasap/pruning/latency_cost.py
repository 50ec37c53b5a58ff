# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a network takes on a device, in nanoseconds, for any number of kept channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import LatencyTableError, listed
from ..latency import LatencyTable
from ..latency.measure_latency import NETWORKS
from .cost import Cost, CostTables
from .groups import PrunableChannels
from .layer_calls import LayerCall, LayerKey, Size, activations, widths
from .timed_networks import network_digest, timed_networks

MOST_OPTIONS, MOST_GROUPS, MOST_PLACES = 300_000, 6, 4_000_000
"""Combinations of widths of a layer that a choice may come to, groups that they are of, and
multiples of the device's step that its table has, at most. A layer with more of them (DenseNet,
which reads many groups) takes the fit to its entries: some megabytes are enough for the others."""

ODD = 0.1, 1000
"""Time of a network over that of its layers beyond which the two are not of one measurement."""
EXACT = 1e3
"""Weight of the dense network among those that are fitted: it is what shares refer to."""
NOISE, SCALES = 0.03, 0.1
"""How far a network's time may be off by chance, and how far layers inside a network may be from
what they take alone, as shares: what the fit weighs against each other. The same network, loaded
anew, is up to 5 % faster or slower; ONNX Runtime runs SSDLite in 1.13 times its layers."""
TIE = 1e-3
"""Weight that decides where the networks do not: time goes to values, then to the fixed part."""


class LatencyCost:
    r"""Nanoseconds of a network: :math:`s \sum_\ell T_\ell(c_{in}, c_{out}) + a + b A + w P`.

    :math:`T_\ell` is a layer's entry in the table of a device, :math:`A` the number of values
    that all layers put out, :math:`P` that of the parameters. The last three terms are what runs
    between the layers, and weights that come from memory. All are fitted to the
    :func:`networks that were timed as a whole <timed_networks>`, none below 0, since a network
    would get faster by more channels; the dense one is met, and ``s`` is drawn to 1. A table
    without those networks has ``s = 1`` and no rest: shares of the dense time then take the rest
    to shrink as the layers do.

    Args:
        channels (PrunableChannels): The channels of the dense model.
        table (LatencyTable): The table of the device.
        steps (np.ndarray, optional): In which groups shrink, int of shape ``[groups]``. Defaults
            to one by one.

    Raises:
        LatencyTableError: If the table lacks a layer, or its networks do not fit its layers.

    Attributes:
        has_rest (bool): Whether the table has timed the network as a whole.
        misfit (float): How much longer than timed a network takes by this formula, as a share; of
            the networks that were timed the one that is furthest off.
    """

    def __init__(
        self,
        channels: PrunableChannels,
        table: LatencyTable,
        steps: np.ndarray | None = None,
    ) -> None:
        self.num_groups = len(channels.groups)
        self.calls = [call for call in channels.calls if call.is_timed]
        self.table = table
        self._check_complete()
        sizes = channels.group_sizes
        steps = np.ones_like(sizes) if steps is None else steps
        self._layers = _Layers(self.calls, table, sizes, steps)
        self._activations = activations(channels.calls, self.num_groups)
        self._params = channels.params
        self._scale, self._fixed, self._per_value, self._per_param = 1.0, 0.0, 0.0, 0.0
        timed = table.network(network_digest(channels))
        self.has_rest, self.misfit = timed is not None, 0.0
        if timed is not None:
            self._calibrate([*timed_networks(channels).values()], np.array(timed))

    def _check_complete(self) -> None:
        missing = self.table.missing([call.key.to_dict() for call in self.calls])
        if missing:
            raise LatencyTableError(
                f'the table has not timed {listed(missing, 2)}: it is of another model, image '
                f'size, batch or dtype{_size_of(self.table)}; make one of this config with adasap '
                f'latency'
            )

    def _calibrate(self, networks: Sequence[np.ndarray], times: np.ndarray) -> None:
        """Fit what layers alone do not tell to networks that were timed as a whole.

        Args:
            networks (Sequence[np.ndarray]): Channels of each group of them, the dense one first.
            times (np.ndarray): Nanoseconds, float64 of shape ``[networks]``.
        """
        layers = np.array([self._layers(counts) for counts in networks])
        if max(times) > 1.1 * times[0] or not ODD[0] < times[0] / layers[0] < ODD[1]:
            named = zip(NETWORKS, times / 1e6, strict=True)
            said = ', '.join(f'{name} {ms:.3g}' for name, ms in named)
            raise LatencyTableError(
                f'the networks of the table do not fit its layers: {said} ms, and the layers of '
                f'the dense one {layers[0] / 1e6:.3g}; make the table anew with adasap latency '
                f'--force'
            )
        values, params = (
            [cost(n) for n in networks] for cost in (self._activations, self._params)
        )
        terms = np.stack([layers, np.ones_like(layers), values, params], axis=1)
        self._scale, self._fixed, self._per_value, self._per_param = _fit(terms, times)
        off = np.array([self(counts) for counts in networks]) / times - 1
        self.misfit = float(off[np.abs(off).argmax()])

    def _rest(self, counts: np.ndarray) -> float:
        values, params = self._activations(counts), self._params(counts)
        return self._fixed + self._per_value * values + self._per_param * params

    def __call__(self, counts: np.ndarray) -> int:
        """Return nanoseconds when each group keeps ``counts`` channels (int, ``[groups]``)."""
        counts = np.asarray(counts)
        return round(self._scale * self._layers(counts) + self._rest(counts))

    def per_call(self, counts: np.ndarray) -> np.ndarray:
        """Return nanoseconds of each layer call, float64 of shape ``[calls]``."""
        return self._scale * self._layers.each(np.asarray(counts))

    def tables(self, options: Sequence[np.ndarray]) -> CostTables:
        """Return the time as tables over the groups' kept channels, see :meth:`Cost.tables`."""
        parts = [
            (self._scale, self._layers.tables(options)),
            (self._per_value, self._activations.tables(options)),
            (self._per_param, self._params.tables(options)),
        ]
        tables: dict[tuple[int, ...], np.ndarray] = {}
        for factor, part in parts:
            for groups, table in part.tables if factor else ():
                tables[groups] = tables.get(groups, 0.0) + factor * table
        constant = self._fixed + sum(factor * part.constant for factor, part in parts)
        return CostTables(constant, list(tables.items()))


def _fit(terms: np.ndarray, times: np.ndarray) -> list[float]:
    """Return what each term is multiplied by, 0 or more, to be near the times of networks.

    Args:
        terms (np.ndarray): Layers, 1, values and parameters of each network, the dense one first,
            float64 of shape ``[networks, 4]``.
        times (np.ndarray): Nanoseconds, float64 of shape ``[networks]``.
    """
    from scipy.optimize import nnls

    # The unknowns are what each term has of the dense time, in shares.
    dense = np.where(terms[0] > 0, terms[0], 1) / times[0]
    weights = np.array([EXACT, *np.ones(len(times) - 1)]) / NOISE
    rows = [
        (weights / times)[:, None] * terms / dense,
        np.array([[1 / dense[0], 0, 0, 0]]) / SCALES,
        TIE * np.array([[0, 1, 0, 0], [0, 0, 0, 2]]),
    ]
    found, _ = nnls(np.concatenate(rows), np.array([*weights, 1 / SCALES, 0, 0]))
    return (found / dense).tolist()


def _size_of(table: LatencyTable) -> str:
    """Return the input that a table was made for, for a message; '' if it has several."""
    shape = table.input_shape
    return '' if shape is None else f' (its input is {" x ".join(map(str, shape))})'


class _Layers:
    """The sum of all layer calls: most are looked up, those of many groups are fitted.

    Args:
        calls (Sequence[LayerCall]): The calls.
        table (LatencyTable): Has an entry for each of their keys.
        sizes (np.ndarray): Channels of each group of the dense model.
        steps (np.ndarray): In which groups shrink.
    """

    def __init__(
        self,
        calls: Sequence[LayerCall],
        table: LatencyTable,
        sizes: np.ndarray,
        steps: np.ndarray,
    ) -> None:
        self._step, self._calls = table.step, calls
        self._inputs, self._outputs = (
            _matrix([getattr(call, axis) for call in calls], len(sizes))
            for axis in ('inputs', 'outputs')
        )
        self._is_fitted = np.array(
            [self._has_many_options(call, sizes, steps) for call in calls], dtype=bool
        )
        self._fits = np.zeros((len(calls), 4))
        for number in np.flatnonzero(self._is_fitted):
            self._fits[number] = table.bilinear_fit(calls[number].key.to_dict())
        self._start = np.zeros(len(calls), dtype=np.int64)
        self._row = np.ones(len(calls), dtype=np.int64)
        self._times = self._look_up_all(table, sizes)

    def _has_many_options(self, call: LayerCall, sizes: np.ndarray, steps: np.ndarray) -> bool:
        groups = [*{*call.inputs[1], *call.outputs[1]}]
        options = math.prod((-(-sizes[groups] // steps[groups])).tolist())
        dense = [widths(axis, sizes) for axis in (call.inputs, call.outputs)]
        places = math.prod(float(self._place(width)) + 1 for width in dense)
        return len(groups) > MOST_GROUPS or options > MOST_OPTIONS or places > MOST_PLACES

    def _look_up_all(self, table: LatencyTable, sizes: np.ndarray) -> np.ndarray:
        """Return the times of each key at all multiples of the step, one key after another."""
        widest: dict[LayerKey, np.ndarray] = {}
        pairs = np.stack([_lengths(self._inputs, sizes), _lengths(self._outputs, sizes)], axis=1)
        for number in np.flatnonzero(~self._is_fitted):
            key = self._calls[number].key
            widest[key] = np.maximum(widest.get(key, 0), pairs[number])
        times, starts, rows, end = [np.zeros(0)], {}, {}, 0
        for key, (inputs, outputs) in widest.items():
            grids = [
                np.minimum(np.arange(1, self._place(most) + 2) * self._step, most)
                for most in (inputs, outputs)
            ]
            if key.group_width is not None:
                grids[1] = np.zeros(1)
            found = table.time(key.to_dict(), grids[0][:, None], grids[1])
            times.append(np.broadcast_to(found, (len(grids[0]), len(grids[1]))).ravel())
            starts[key], rows[key] = end, len(grids[1])
            end += len(times[-1])
        for number in np.flatnonzero(~self._is_fitted):
            key = self._calls[number].key
            self._start[number], self._row[number] = starts[key], rows[key]
        return np.concatenate(times)

    def _place(self, width: np.ndarray | float) -> np.ndarray:
        """Return the place of a width among the multiples of the step."""
        # A share of a group's channels may be 31.999999999999996 of them.
        return np.maximum(np.ceil(np.asarray(width) / self._step - 1e-9), 1).astype(np.int64) - 1

    def _time(
        self, number: int | np.ndarray, inputs: np.ndarray, outputs: np.ndarray
    ) -> np.ndarray:
        """Return what calls take that are looked up, for their widths."""
        row = self._row[number]
        place = self._start[number] + self._place(inputs) * row
        return self._times[place + np.where(row > 1, self._place(outputs), 0)]

    def each(self, counts: np.ndarray) -> np.ndarray:
        """Return nanoseconds of each call, float64 of shape ``[calls]``."""
        inputs, outputs = _lengths(self._inputs, counts), _lengths(self._outputs, counts)
        a, b, c, d = self._fits.T
        found = a + b * inputs + c * outputs + d * inputs * outputs
        looked_up = ~self._is_fitted
        found[looked_up] = self._time(looked_up, inputs[looked_up], outputs[looked_up])
        return found

    def __call__(self, counts: np.ndarray) -> float:
        """Return nanoseconds of all calls."""
        return float(self.each(counts).sum())

    def tables(self, options: Sequence[np.ndarray]) -> CostTables:
        """Return them as tables over the groups' kept channels, see :meth:`Cost.tables`."""
        fitted = Cost(len(options))
        tables: dict[tuple[int, ...], np.ndarray] = {}
        for number, call in enumerate(self._calls):
            if self._is_fitted[number]:
                a, b, c, d = self._fits[number]
                fitted.constant += a
                fitted.add(b, call.inputs)
                fitted.add(c, call.outputs)
                fitted.add(d, call.inputs, call.outputs)
                continue
            groups = tuple(sorted({*call.inputs[1], *call.outputs[1]}))
            axes = dict(zip(groups, np.ix_(*(options[g] for g in groups)), strict=True))
            found = self._time(number, widths(call.inputs, axes), widths(call.outputs, axes))
            tables[groups] = tables.get(groups, 0.0) + found
        constant, others = fitted.tables(options)
        for groups, table in others:
            tables[groups] = tables.get(groups, 0.0) + table
        return CostTables(constant + float(tables.pop((), 0.0)), list(tables.items()))


def _matrix(sizes: Sequence[Size], num_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lengths of axes as fixed parts and indices per channel, ``[axes, groups]``."""
    per_channel = np.zeros((len(sizes), num_groups))
    for row, (_, groups) in zip(per_channel, sizes, strict=True):
        for group, count in groups.items():
            row[group] = count
    return np.array([fixed for fixed, _ in sizes], dtype=np.float64), per_channel


def _lengths(axes: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> np.ndarray:
    return axes[0] + axes[1] @ np.asarray(counts, dtype=np.float64)
