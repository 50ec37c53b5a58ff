# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models on another test set of the same classes, as ImageNet-V2: P there, and R = P / clean P."""

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .metrics.bootstrap import interval

NAME = re.compile(r'[^\W_][\w.-]*')
"""What another set may be called; files are called after it."""
FIGURES = ('P', 'R')
LIMITS = {'P': (0, 1), 'R': (0, np.inf)}


def seed_of_draws(seed: int, name: str) -> list[int]:
    """A seed for the resamples of another set: its images are drawn apart from the test set's."""
    return [seed, zlib.crc32(name.encode())]


def build_shifts(
    cell: Mapping, clean: Mapping, names: Iterable[str], reference: str
) -> dict[str, dict]:
    """The figures of each model on another set, as results.json has them under 'shifts'.

    Args:
        cell (Mapping): The cell of that set, as
            :func:`~mmdet_adasap.robustness.results.cell_to_dict` gives it.
        clean (Mapping): The cell of the clean test set.
        names (Iterable[str]): The models.
        reference (str): The model that others are compared with, on the same images; where it is
            none of the models there are no differences.
    """
    shifts = {name: _Shift.of(cell['models'][name], clean['models'][name]) for name in names}
    other = shifts.get(reference)
    return {
        name: {
            **shift.values,
            'ci95': shift.intervals(),
            'difference': None if other is None or other is shift else shift.minus(other),
        }
        for name, shift in shifts.items()
    }


class _Shift(NamedTuple):
    """P and R of one model, and both in every resample where there are any, arrays of (R,)."""

    values: dict[str, float | None]
    draws: dict[str, np.ndarray]

    @classmethod
    def of(cls, there: Mapping[str, Any], here: Mapping[str, Any]) -> '_Shift':
        p, clean = there['value'], here['value']
        draws = {}
        if there['resampled'] is not None and here['resampled'] is not None:
            draws['P'], drawn_clean = np.array(there['resampled']), np.array(here['resampled'])
            if clean and drawn_clean.all():
                draws['R'] = draws['P'] / drawn_clean
        return cls({'P': p, 'R': p / clean if clean else None}, draws)

    def intervals(self) -> dict[str, list[float] | None] | None:
        if not self.draws:
            return None
        ends = {k: interval(drawn, self.values[k], LIMITS[k]) for k, drawn in self.draws.items()}
        return {'R': None, **ends}

    def minus(self, other: '_Shift') -> dict[str, dict | None]:
        found: dict[str, dict | None] = dict.fromkeys(FIGURES)
        for key in FIGURES:
            mine, theirs = self.values[key], other.values[key]
            if mine is None or theirs is None:
                continue
            drawn = key in self.draws and key in other.draws
            ends = interval(self.draws[key] - other.draws[key], mine - theirs) if drawn else None
            found[key] = {'value': mine - theirs, 'ci95': ends}
        return found
