# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The means of the robustness benchmark, arXiv:1907.07484."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from ..datasets.corruptions import GROUPS


def summarize(cells: Mapping[str, Mapping[int | str, float]], clean: float) -> dict:
    """Mean performance under corruption, and what share of the clean performance it is.

    With P_{c,s} the performance under corruption c at severity s, Eq. 1 and 2 of
    arXiv:1907.07484 are

        ``mPC = mean over c of (mean over s of P_{c,s})`` and ``rPC = mPC / P_clean``,

    so rPC is a ratio of means, not a mean of ratios.

    Args:
        cells (Mapping): P_{c,s} as a fraction, ``{corruption: {severity: P}}``. Severities
            may be written as text, as in JSON, and must be the same for every corruption.
        clean (float): P_clean, a fraction above 0.

    Returns:
        dict: All as fractions: 'mPC', 'rPC', 'per_corruption' ``{corruption: mean over s}``,
        'per_severity' ``{severity as int: mean over c}`` and 'per_group' ``{'noise', 'blur',
        'weather', 'digital': mean over the group's corruptions}``, groups without a
        corruption left out.

    Raises:
        ValueError: If ``cells`` is empty, names an unknown corruption or severity, lacks one,
            or a value is not a fraction; or if ``clean`` is zero.
    """
    clean = _fraction('clean', clean)
    if clean == 0:
        raise ValueError('clean=0: rPC is a ratio to it; test a model that detects something')
    if not cells:
        raise ValueError('cells is empty; give {corruption: {severity: P}}')

    known = {name for names in GROUPS.values() for name in names}
    table = {}
    for corruption, row in cells.items():
        if corruption not in known:
            raise ValueError(
                f'cells: corruption {corruption!r} is unknown; use one of {sorted(known)}'
            )
        table[corruption] = {
            _severity(corruption, severity): _fraction(f'cells[{corruption!r}][{severity!r}]', p)
            for severity, p in row.items()
        }
    severities = sorted(set().union(*table.values()))
    for corruption, row in table.items():
        missing = [severity for severity in severities if severity not in row]
        if missing or not row:
            raise ValueError(
                f'cells[{corruption!r}] lacks severity {missing or "1 to 5"}, so that means '
                f'would not compare; test it, or leave that severity out everywhere'
            )

    per_corruption = {name: _mean(row.values()) for name, row in table.items()}
    mpc = _mean(per_corruption.values())
    return {
        'mPC': mpc,
        'rPC': mpc / clean,
        'per_corruption': per_corruption,
        'per_severity': {s: _mean(row[s] for row in table.values()) for s in severities},
        'per_group': {
            group: _mean(per_corruption[name] for name in names if name in per_corruption)
            for group, names in GROUPS.items()
            if not per_corruption.keys().isdisjoint(names)
        },
    }


def _mean(values) -> float:
    return float(np.mean(list(values)))


def _severity(corruption: str, severity: object) -> int:
    """1 to 5, also if it is written as text."""
    if str(severity) not in ('1', '2', '3', '4', '5'):
        raise ValueError(f'cells[{corruption!r}]: severity {severity!r} must be 1 to 5')
    return int(severity)


def _fraction(key: str, value: object) -> float:
    """``value``, if it is a number from 0 to 1."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    # Written so that NaN is refused as well.
    if not number or not 0 <= value <= 1:
        raise ValueError(f'{key}={value!r} must be a fraction from 0 to 1, not in percent')
    return float(value)
