# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a user asks for: how much of a model is to remain, and how much a layer may lose."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
from torch import Tensor, nn

from ..errors import LatencyTableError, did_you_mean
from ..latency import LatencyTable

RESOURCES = ('params', 'flops', 'latency')
"""What a target may limit."""
MAX_PRUNING_RATIO = 0.9
"""Default of ``max_pruning_ratio``."""
ROUND_TO = 8
"""Default of ``round_to`` without a table, what kernels of most devices are made for."""
UNITS = {'s': 1e3, 'ms': 1.0, 'us': 1e-3, 'µs': 1e-3}
"""Milliseconds of the units in which a latency may be given."""
NEEDS_TABLE = (
    'latency needs the table of the device: target=dict(latency=0.6, table="table.json"); '
    'adasap latency CONFIG --out table.json makes it'
)


@dataclass(frozen=True)
class Target:
    """What is to remain of a dense model; all limits have to hold.

    Args:
        fractions (dict[str, float]): Resource to the fraction of it, above 0 and at most 1.
        milliseconds (float, optional): Of the latency, where that is no fraction.
        table (LatencyTable, optional): What each layer takes on the device.
    """

    fractions: dict[str, float]
    milliseconds: float | None = None
    table: LatencyTable | None = None

    @property
    def resources(self) -> tuple[str, ...]:
        """What is limited, in the order in which it was written."""
        return (*self.fractions, *(['latency'] if self.milliseconds is not None else []))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images that the table was made for; None if none are given."""
        shape = None if self.table is None else self.table.input_shape
        return None if shape is None else tuple(shape[-2:])

    def fraction(self, resource: str, dense: Mapping[str, int]) -> float:
        """Return the fraction of the dense model that is to remain of a resource.

        Args:
            resource (str): One of :attr:`resources`.
            dense (Mapping[str, int]): What the dense model costs; latency in nanoseconds.
        """
        if resource in self.fractions:
            return self.fractions[resource]
        return min(self.milliseconds * 1e6 / dense[resource], 1.0)

    def to_dict(self) -> dict:
        """Return the target as plain data, as a checkpoint holds it; a table by its digest."""
        plain = dict(self.fractions)
        if self.milliseconds is not None:
            plain['latency'] = f'{self.milliseconds:g}ms'
        return plain if self.table is None else {**plain, 'table': self.table.digest}

    def __str__(self) -> str:
        limits = {
            k: v if isinstance(v, str) else float(v)
            for k, v in self.to_dict().items()
            if k != 'table'
        }
        text = ', '.join(
            f'{k}={v!r}' if isinstance(v, str) else f'{k}={v:g}' for k, v in limits.items()
        )
        return f'target=dict({text}{", table=..." if self.table is not None else ""})'


def check_target(target: object) -> Target:
    """Check a target, ``dict(params=0.4)`` or ``dict(latency='12ms', table='table.json')``.

    Args:
        target (object): One or more of ``params``, ``flops`` and ``latency``, and the path of a
            table for the last one; or what this function has returned before.

    Raises:
        ValueError: If it is anything else.
        LatencyTableError: If the table cannot be read.
    """
    if isinstance(target, Target):
        return target
    keys = [*target] if isinstance(target, Mapping) else []
    limited = [key for key in keys if key in RESOURCES]
    if not limited or any(key not in (*RESOURCES, 'table') for key in keys):
        raise ValueError(
            f'target={_shown(target)} must be a dict with one or more of the keys {RESOURCES}'
            f'{_hint_for_target(target)}'
        )
    milliseconds, fractions = None, {}
    for resource in limited:
        if resource == 'latency' and isinstance(target[resource], str):
            milliseconds = _milliseconds(target)
        elif not is_fraction(target[resource]):
            raise ValueError(_not_a_fraction(target, resource))
        else:
            fractions[resource] = float(target[resource])
    table = target.get('table')
    if ('latency' in limited) != (table is not None):
        surplus = 'table is for a latency, of which there is none: leave it out, or write latency'
        raise ValueError(f'target={target!r}: {NEEDS_TABLE if table is None else surplus}')
    if table is not None and not isinstance(table, LatencyTable):
        if not isinstance(table, str | os.PathLike):
            raise ValueError(f'target={target!r}: table must be the path of a file; {NEEDS_TABLE}')
        try:
            table = LatencyTable.read(table)
        except LatencyTableError as error:
            raise LatencyTableError(f'target.table: {error}') from error
    return Target(fractions, milliseconds, table)


def _milliseconds(target: Mapping) -> float:
    """Return a latency in milliseconds, '12ms' or '0.012 s'."""
    text = target['latency']
    match = re.fullmatch(r'\s*(\d+\.?\d*|\.\d+)\s*(\w+)\s*', text)
    amount = float(match[1]) * UNITS.get(match[2], 0) if match else 0
    if not amount:
        raise ValueError(
            f"target={target!r}: latency={text!r} must be a time as '12ms', with the unit s, ms "
            f'or us, or a fraction of the dense time, without quotes'
        )
    return amount


def _not_a_fraction(target: Mapping, resource: str) -> str:
    """Return the message for a limit that is no fraction."""
    fraction = target[resource]
    percent = isinstance(fraction, Real) and 1 < fraction <= 100
    example = f'{fraction / 100:g}' if percent else '0.4'
    quotes = ', without quotes' if isinstance(fraction, str) else ''
    table = time = ''
    if resource == 'latency':
        is_number = isinstance(fraction, Real) and fraction > 1
        table, time = ", table='table.json'", f" or latency='{fraction}ms'" if is_number else ''
    return (
        f'target={target!r}: {resource} must be a fraction of the dense model above 0 and '
        f'at most 1, for example target=dict({resource}={example}{table}){quotes}{time}'
    )


def default_step(table: LatencyTable | None) -> int:
    """Return what ``round_to`` is where nobody sets it: 8, or the device's step if it is larger.

    Args:
        table (LatencyTable, optional): The table of the device.
    """
    return ROUND_TO if table is None else max(ROUND_TO, table.step)


def check_max_pruning_ratio(value: object) -> None:
    """Raise ValueError if the largest share that a group may lose is no number in (0, 1]."""
    if not is_fraction(value):
        raise ValueError(
            f'max_pruning_ratio={value!r} must be a number above 0 and at most 1, for example '
            f'0.9: a layer then keeps a tenth of its channels or more'
        )


def is_fraction(value: object) -> bool:
    """Return whether a value is a number above 0 and at most 1."""
    # numpy's float32 is no Real. True is one, but no fraction.
    number = isinstance(value, Real | np.floating) and not isinstance(value, bool)
    return number and 0 < value <= 1


def _hint_for_target(target: object) -> str:
    """Return what to write instead of a target that has no resource, or an unknown one."""
    if not isinstance(target, Mapping):
        fraction = target if is_fraction(target) else 0.4
        return f'; write target=dict(params={fraction}) or target=dict(flops={fraction})'
    unknown = [key for key in target if key not in (*RESOURCES, 'table')]
    return (
        did_you_mean(unknown[0], (*RESOURCES, 'table'))
        if unknown
        else '; write target=dict(params=0.4)'
    )


def _shown(value: object) -> str:
    return f'a {type(value).__name__}' if isinstance(value, Tensor | nn.Module) else repr(value)
