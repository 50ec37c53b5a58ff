# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What layers take on a device, read from the table that measure_latency.py made there."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import LatencyTableError
from .measure_latency import NETWORKS, TABLE_FORMAT, key_id, readable

HEAD = {
    'backend': str,
    'backend_version': str,
    'device': str,
    'device_name': str,
    'threads': int,
    'dtype': str,
    'clock': str,
    'rounds': int,
    'reference_ns': float,
    'step': int,
    'spread': float,
    'layers': list,
    'networks': dict,
}
"""Fields of table.json, and what they hold."""

MATTERS = ('backend', 'backend_version', 'device', 'device_name', 'threads', 'dtype', 'step')
"""Fields that change what a table says, beside the times; the others say how it was made."""

LARGEST = 1e15
"""No ratio, width or time is larger; an own choice: 1e15 ns are 11 days. Infinity is, too."""

MOST_STEP = 256
"""No device has a larger step; an own choice: those that were measured have 16 and 32."""

AGAIN = 'measure it again with measure_latency.py'


class LatencyTable:
    """The times of layers on one device.

    Args:
        content (Mapping): The content of table.json.
        name (str): What errors call it, usually its file. Defaults to 'the table'.

    Raises:
        LatencyTableError: If it is malformed, or lacks points.

    Attributes:
        backend (str): 'torch', 'onnxruntime' or 'openvino'.
        backend_version (str): Its version.
        device (str): 'cpu' or 'cuda'.
        device_name (str): Of the processor or GPU.
        threads (int): Threads that the backend used.
        dtype (str): Of the network, as 'float32'.
        step (int): Within multiples of it, fewer channels are no faster; 1 if there are no steps.
        reference_ns (float): Time of the reference convolution, in nanoseconds.
        digest (str): 16 hexadecimal digits, the same for tables that say the same.
        networks (dict[str, tuple[float, ...]]): Digest of a network to nanoseconds of those that
            are timed as a whole, in the order of ``NETWORKS``.
        input_shape (tuple[int, ...] | None): Of the networks, ``[N, C, H, W]``; None if the table
            is of several.
    """

    def __init__(self, content: Mapping, name: str = 'the table') -> None:
        self._name = name
        self._check_head(content)
        self.backend, self.backend_version = content['backend'], content['backend_version']
        self.device, self.device_name = content['device'], content['device_name']
        self.threads, self.dtype, self.step = (content[n] for n in ('threads', 'dtype', 'step'))
        self.reference_ns = float(content['reference_ns'])
        self._entries: dict[str, _Entry] = {}
        for number, entry in enumerate(content['layers']):
            self._add(number, entry)
        shapes, self.networks = set(), {}
        for digest, network in content['networks'].items():
            shapes.add(self._network_shape(digest, network))
            # One that lacks a name was timed by an older version: its layers are of use.
            if set(NETWORKS) <= set(network):
                self.networks[digest] = self._network_times(digest, network)
        self.input_shape = shapes.pop() if len(shapes) == 1 else None
        self.digest = self._digest(content)

    @classmethod
    def read(cls, path: str | Path) -> LatencyTable:
        """Read a table.

        Args:
            path (str | Path): table.json.

        Raises:
            LatencyTableError: If it cannot be read, is malformed, or lacks points.
        """
        try:
            content = json.loads(Path(path).read_text(encoding='utf-8-sig'))
        except OSError as error:
            raise LatencyTableError(
                f'{path}: cannot be read ({error.strerror}); make it with adasap latency CONFIG '
                f'--out {path}, or write the path of a table that is there'
            ) from error
        except (ValueError, RecursionError) as error:
            raise LatencyTableError(
                f'{path}: is no JSON ({error}); copy it again from the device'
            ) from error
        return cls(content, str(path))

    def _error(self, what: str, remedy: str = AGAIN) -> LatencyTableError:
        return LatencyTableError(f'{self._name}: {what}; {remedy}')

    def _no_ratio(self, point: str, ratio: object) -> LatencyTableError:
        if ratio is None:
            remedy = 'go on with measure_latency.py and this --out'
            return self._error(f'{point}: not measured yet', remedy)
        return self._error(f'{point}: {ratio!r:.40} is no ratio above 0')

    def _check_head(self, content: Mapping) -> None:
        if not isinstance(content, Mapping) or content.get('format') != TABLE_FORMAT:
            raise self._error(f'format: not "{TABLE_FORMAT}"')
        for name, kind in HEAD.items():
            if name not in content:
                raise self._error(f'{name}: is missing')
            value = content[name]
            # The spread of one round is 0; a whole number may stand where a fraction is meant.
            fits = kind is float or isinstance(value, kind)
            if not fits or (kind in (int, float) and not _is_number(value, name == 'spread')):
                raise self._error(f'{name}: {value!r:.40} is no {_WORDS[kind]}')
        if content['step'] > MOST_STEP:
            raise self._error(f'step: {content["step"]} channels are no step of a device')

    def _add(self, number: int, entry: Mapping) -> None:
        """Check an entry and keep it."""
        try:
            key, layer, identity = entry['key'], readable(entry['key']), key_id(entry['key'])
            inputs, rows, is_grouped = entry['inputs'], entry['ratios'], bool(key['group_width'])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            what = f'layer {number}: malformed ({type(error).__name__}: {error})'
            raise self._error(what) from error
        if identity in self._entries:
            raise self._error(f'{layer}: occurs twice', 'leave one of the two')
        grids = [inputs, [1] if is_grouped else entry.get('outputs')]
        for name, grid in zip(('inputs', 'outputs'), grids, strict=True):
            whole = isinstance(grid, list) and grid and all(type(width) is int for width in grid)
            if not whole or grid != sorted(set(grid)) or not 1 <= grid[0] <= grid[-1] < LARGEST:
                raise self._error(f'{layer}: {name} are no ascending numbers of channels')
        rows = [[row] for row in rows] if is_grouped and isinstance(rows, list) else rows
        shape = [len(grid) for grid in grids]
        if not _has_shape(rows, shape):
            raise self._error(f'{layer}: ratios are not {shape[0]} lists of {shape[1]}')
        for (i, width), (j, other) in itertools.product(*map(enumerate, grids)):
            if not _is_number(rows[i][j]):
                point = f'{width} channels' if is_grouped else f'{width} to {other} channels'
                raise self._no_ratio(f'{layer}, {point}', rows[i][j])
        times = np.array(rows, dtype=np.float64) * self.reference_ns
        self._entries[identity] = _Entry(layer, *map(np.array, grids), times, self.step)

    def _network_shape(self, digest: str, network: object) -> tuple[int, ...]:
        shape = network.get('input') if isinstance(network, Mapping) else None
        whole = isinstance(shape, list) and all(type(n) is int and 0 < n < LARGEST for n in shape)
        if not whole or len(shape) != 4:
            raise self._error(f'networks: {digest}: input is no shape of four')
        return tuple(shape)

    def _network_times(self, digest: str, network: Mapping) -> tuple[float, ...]:
        found = [network.get(name) for name in NETWORKS]
        if None in found:
            remedy = 'go on with adasap latency, or measure_latency.py, and this --out'
            raise self._error('the network as a whole: not measured yet', remedy)
        if not all(map(_is_number, found)):
            names = ', '.join(NETWORKS)
            raise self._error(f'networks: {digest}: one of {names} is no ratio above 0')
        return tuple(ratio * self.reference_ns for ratio in found)

    def _digest(self, content: Mapping) -> str:
        layers = sorted(
            (identity, entry.inputs.tolist(), entry.outputs.tolist(), entry.times.tolist())
            for identity, entry in self._entries.items()
        )
        said = [[content[name] for name in MATTERS], layers, sorted(self.networks.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def _entry(self, key: Mapping) -> _Entry:
        try:
            return self._entries[key_id(key)]
        except KeyError:
            raise self._error(
                f'{readable(key)}: is not in it',
                'measure the layers of this network, too: adasap layers lists them',
            ) from None

    def time(
        self, key: Mapping, inputs: np.ndarray | int, outputs: np.ndarray | int = 0
    ) -> np.ndarray:
        """Return what a layer takes.

        Widths are rounded up to the step, and times between measured widths are bilinear. More
        channels never take less: a noisy table has such points, and a choice of channels would
        seek them out.

        Args:
            key (Mapping): The layer, as :meth:`LayerKey.to_dict` gives it.
            inputs (np.ndarray | int): Input channels.
            outputs (np.ndarray | int): Output channels, of a shape that broadcasts with
                ``inputs``; not used if the key has a ``group_width``.

        Returns:
            np.ndarray: Nanoseconds, float64 of the shape of both.

        Raises:
            LatencyTableError: If the layer, or widths so large, were not measured.
        """
        entry = self._entry(key)
        outputs = 1 if key['group_width'] else outputs
        for name, grid, widths in (
            ('inputs', entry.inputs, inputs),
            ('outputs', entry.outputs, outputs),
        ):
            most = np.max(widths, initial=0)
            if most > grid[-1] + NEARLY:
                raise self._error(
                    f'{entry.layer}: {most:g} {name} are more than the {grid[-1]} that were '
                    'measured',
                    'measure the layers of this network, too: adasap layers lists them',
                )
        return entry.time(inputs, outputs)

    def bilinear_fit(self, key: Mapping) -> tuple[float, float, float, float]:
        r"""Return the formula that is nearest to a layer's times, by relative squared error.

        Args:
            key (Mapping): The layer.

        Returns:
            tuple[float, float, float, float]: Nanoseconds a, b, c, d of
            :math:`T = a + b c_{in} + c c_{out} + d c_{in} c_{out}`, none below 0. c and d are 0
            if the key has a ``group_width``.

        Raises:
            LatencyTableError: If the layer is not in the table.
        """
        return self._entry(key).bilinear_fit()

    def missing(self, keys: Iterable[Mapping]) -> list[str]:
        """Return the layers that are not in the table, as people write them."""
        lacks = {key_id(key): readable(key) for key in keys if key_id(key) not in self._entries}
        return list(lacks.values())

    def network(self, digest: str) -> tuple[float, ...] | None:
        """Return what a network took as a whole, and copies of it with fewer channels.

        Args:
            digest (str): The network, 16 hexadecimal digits.

        Returns:
            tuple[float, ...] | None: Nanoseconds of ``NETWORKS``; None if it was not measured.
        """
        return self.networks.get(digest)

    def describe(self) -> str:
        """Return one line for people: backend, device, threads, dtype."""
        threads = f'{self.threads} thread{"s" if self.threads > 1 else ""}'
        where = f'{self.device_name}, {threads}' if self.device == 'cpu' else self.device_name
        return f'{self.backend} {self.backend_version} on {where}, {self.dtype}'


NEARLY = 1e-6
"""A width that is computed from shares may be 64.00000000000001; an own choice."""

_WORDS = {str: 'text', int: 'whole number above 0', float: 'number', list: 'list', dict: 'dict'}


def _is_number(value: object, zero: bool = False) -> bool:
    """Return whether a value is a number above 0, and no NaN or infinity."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (value >= 0 if zero else value > 0) and value < LARGEST


def _has_shape(rows: object, shape: Sequence[int]) -> bool:
    """Return whether a value is a list of lists, all of one length."""
    is_list = isinstance(rows, list) and len(rows) == shape[0]
    return is_list and all(isinstance(row, list) and len(row) == shape[1] for row in rows)


class _Entry:
    """The times of one layer on a grid of widths.

    Args:
        layer (str): The layer, for errors.
        inputs (np.ndarray): Ascending widths, int of shape ``[inputs]``.
        outputs (np.ndarray): Likewise.
        times (np.ndarray): Nanoseconds, float64 of shape ``[inputs, outputs]``.
        step (int): The step of the device.
    """

    def __init__(
        self, layer: str, inputs: np.ndarray, outputs: np.ndarray, times: np.ndarray, step: int
    ) -> None:
        self.layer, self.inputs, self.outputs, self._step = layer, inputs, outputs, step
        for axis in (0, 1):
            times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
        self.times = times

    def time(self, inputs: np.ndarray | int, outputs: np.ndarray | int) -> np.ndarray:
        """Return the times for widths, none above the last of the grid."""
        i, right = self._place(self.inputs, inputs)
        j, below = self._place(self.outputs, outputs)
        i_next = np.minimum(i + 1, len(self.inputs) - 1)
        j_next = np.minimum(j + 1, len(self.outputs) - 1)
        near = (1 - below) * self.times[i, j] + below * self.times[i, j_next]
        far = (1 - below) * self.times[i_next, j] + below * self.times[i_next, j_next]
        return np.asarray((1 - right) * near + right * far)

    def _place(self, grid: np.ndarray, widths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the grid point before each width, and the share of the way to the next."""
        stairs = np.ceil(np.asarray(widths) / self._step - NEARLY) * self._step
        found = np.clip(stairs, grid[0], grid[-1])
        before = np.clip(np.searchsorted(grid, found, side='right') - 1, 0, max(len(grid) - 2, 0))
        gap = np.diff(grid)[before] if len(grid) > 1 else 1
        return before, (found - grid[before]) / gap

    def bilinear_fit(self) -> tuple[float, float, float, float]:
        """Return the four terms, see :meth:`LatencyTable.bilinear_fit`."""
        from scipy.optimize import nnls

        inputs, outputs = self.inputs / self.inputs[-1], self.outputs / self.outputs[-1]
        ones = np.ones_like(self.times)
        terms = [ones, inputs[:, None] * ones, outputs * ones, np.outer(inputs, outputs)]
        columns = np.stack([(term / self.times).ravel() for term in terms], axis=1)
        (a, b, c, d), _ = nnls(columns, np.ones(len(columns)))
        inputs, outputs = self.inputs[-1].item(), self.outputs[-1].item()
        return a, b / inputs, c / outputs, d / (inputs * outputs)
