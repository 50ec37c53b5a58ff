# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""mPC, rPC and mCE: the means of the benchmark, arXiv:1907.07484 and arXiv:1903.12261."""

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import numpy as np

from ..corruptions import BENCHMARK, CORRUPTIONS, GROUPS, SEVERITIES

# P as a fraction, by corruption and severity.
Cells = Mapping[str, Mapping[int | str, float]]


def summarize(
    cells: Cells,
    clean: float,
    *,
    reference: tuple[Cells, float] | None = None,
    partial: bool = False,
    severities: Iterable[int] | None = None,
    allow_zero_clean: bool = False,
) -> dict:
    """Compute the mean performance under corruption, mPC, and its ratio to the clean one, rPC.

    With P_{c,s} the performance under corruption c at severity s, Eq. 1 and 2 of
    arXiv:1907.07484 are

        ``mPC = mean over c of (mean over s of P_{c,s})`` and ``rPC = mPC / P_clean``,

    so rPC is a ratio of means, not a mean of ratios. With E = 1 - P, section 3 of
    arXiv:1903.12261 compares with a reference model:

        ``CE_c = sum over s of E_{c,s} / sum over s of E^ref_{c,s}`` and
        ``relative CE_c = sum over s of (E_{c,s} - E_clean) / the same of the reference``;

    mCE and relative mCE are their means over c, in percent.

    Args:
        cells (Mapping): P_{c,s} as a fraction, ``{corruption: {severity: P}}``. Severities
            may be written as text, as in JSON, and must be the same for every corruption.
            Corruptions that are not among the benchmark's (``BENCHMARK``) are in no mean.
        clean (float): P_clean, a fraction above 0.
        reference (tuple, optional): Cells and clean P of the reference model; the same cells.
        partial (bool): Whether cells may be missing. The means are then over those that are
            there, and the result names those that are not. Defaults to False.
        severities (Iterable[int], optional): Those that every corruption is to have. Defaults to
            those that any of them has.
        allow_zero_clean (bool): Whether ``clean`` may be 0; rPC is None then. A run must not end
            with an error because a model finds nothing. Defaults to False.

    Returns:
        dict: As fractions 'mPC', 'rPC', 'per_corruption' ``{corruption: mean over s}``,
        'per_severity' ``{severity as int: mean over c}`` and 'per_group' ``{'noise', 'blur',
        'weather', 'digital': mean over the group's corruptions}``, groups without a
        corruption left out. What they are means over: 'corruptions' and 'severities', lists;
        'complete', whether these are the whole benchmark; 'missing', ``{corruption:
        [severities]}``, and 'partial', whether there are any. With a reference, in percent:
        'mCE', 'relative_mCE', 'CE' and 'relative_CE' ``{corruption: percent}``; None where the
        reference makes no error, or no more of them than on clean images.

    Raises:
        ValueError: If ``cells`` is empty, names an unknown corruption or severity, or a value is
            not a fraction; if a cell is missing and not ``partial``; if the reference has other
            cells; or if ``clean`` is zero and not ``allow_zero_clean``.
    """
    clean = _fraction('clean', clean)
    if clean == 0 and not allow_zero_clean:
        raise ValueError('clean=0: rPC is a ratio to it; test a model that detects something')
    if not cells:
        raise ValueError('cells is empty; give {corruption: {severity: P}}')
    table = _table('cells', cells)
    severities = sorted(set().union(*table.values()) | set(severities or ()))
    missing = _missing(table, severities, partial)
    # With partial=True a corruption may have no cell at all; it is in missing and in no mean.
    table = {name: row for name, row in table.items() if row}

    counted = _counted(table)
    if not counted:
        raise ValueError(
            f'cells has {", ".join(table) or "no values"}, but mPC is a mean over the '
            f'corruptions of the benchmark: {", ".join(BENCHMARK)}'
        )
    means = _as_floats(mean_performance(table))
    result = {
        **means,
        'rPC': means['mPC'] / clean if clean else None,
        'corruptions': counted,
        'severities': severities,
        'complete': not missing
        and set(counted) == set(BENCHMARK)
        and severities == list(SEVERITIES),
        'missing': missing,
        'partial': bool(missing),
    }
    if reference is not None:
        result |= _against(table, clean, counted, reference)
    return result


def mean_performance(cells: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """Compute mPC and the means beside it, of numbers or in every resample.

    Args:
        cells (Mapping): P_{c,s}, ``{corruption: {severity: P}}``, with a severity at least of
            each, and one corruption of the benchmark at least. P is a number, or an array (R,) of
            P in R resamples.

    Returns:
        dict: 'mPC', 'per_corruption', 'per_group' and 'per_severity', as :func:`summarize` has
        them, each a number or an array (R,).
    """
    # axis=0 leaves the resamples apart, and of plain numbers it is the only axis.
    per_corruption = {name: np.mean(list(row.values()), axis=0) for name, row in cells.items()}
    counted = _counted(cells)
    severities = sorted({s for name in counted for s in cells[name]})
    return {
        'mPC': np.mean([per_corruption[name] for name in counted], axis=0),
        'per_corruption': per_corruption,
        'per_group': {
            group: np.mean([per_corruption[name] for name in names if name in counted], axis=0)
            for group, names in GROUPS.items()
            if any(name in counted for name in names)
        },
        'per_severity': {
            s: np.mean([cells[name][s] for name in counted if s in cells[name]], axis=0)
            for s in severities
        },
    }


def _counted(cells: Mapping[str, Mapping]) -> list[str]:
    """Return the corruptions that mPC is the mean over; the extra ones are in no mean."""
    return [name for name in cells if name in BENCHMARK]


def _as_floats(means: Any) -> Any:
    """Convert numpy's numbers in nested mappings to floats."""
    if isinstance(means, Mapping):
        return {key: _as_floats(each) for key, each in means.items()}
    return float(means)


def _against(
    table: dict[str, dict[int, float]],
    clean: float,
    counted: list[str],
    reference: tuple[Cells, float],
) -> dict:
    """Compute mCE and relative mCE, in percent."""
    other, other_clean = reference
    other, other_clean = _table('reference', other), _fraction('clean of reference', other_clean)
    absolute, relative = {}, {}
    for name in counted:
        row, other_row = table[name], other.get(name, {})
        # A sum over other severities would be another quantity under the same name.
        if row.keys() != other_row.keys():
            raise ValueError(
                f'reference[{name!r}] has severities {sorted(other_row)} and cells[{name!r}] has '
                f'{sorted(row)}; a ratio of sums needs the same ones'
            )
        errors = sum(1 - p for p in row.values())
        other_errors = sum(1 - p for p in other_row.values())
        absolute[name] = _percent(errors, other_errors)
        relative[name] = _percent(
            sum(clean - p for p in row.values()), sum(other_clean - p for p in other_row.values())
        )
    return {
        'mCE': _mean_or_none(absolute.values()),
        'relative_mCE': _mean_or_none(relative.values()),
        'CE': absolute,
        'relative_CE': relative,
    }


def _table(key: str, cells: Cells) -> dict[str, dict[int, float]]:
    table = {}
    for corruption, row in cells.items():
        if corruption not in CORRUPTIONS:
            raise ValueError(
                f'{key}: corruption {corruption!r} is unknown; use one of {sorted(CORRUPTIONS)}'
            )
        table[corruption] = {
            _severity(key, corruption, severity): _fraction(
                f'{key}[{corruption!r}][{severity!r}]', p
            )
            for severity, p in row.items()
        }
    return table


def _missing(
    table: dict[str, dict[int, float]], severities: list[int], partial: bool
) -> dict[str, list[int]]:
    missing = {}
    for corruption, row in table.items():
        lacking = [severity for severity in severities if severity not in row]
        if not partial and (lacking or not row):
            raise ValueError(
                f'cells[{corruption!r}] lacks severity {lacking or "1 to 5"}, so that means '
                f'would not compare; test it, leave that severity out everywhere, or ask for a '
                f'partial summary'
            )
        if lacking or not row:
            missing[corruption] = lacking or list(SEVERITIES)
    return missing


def _mean(values) -> float:
    return float(np.mean(list(values)))


def _mean_or_none(values) -> float | None:
    values = list(values)
    return None if None in values else _mean(values)


def _percent(part: float, whole: float) -> float | None:
    # A reference that makes no error, or no more of them than on clean images, has no ratio.
    return 100 * part / whole if whole > 0 else None


def _severity(key: str, corruption: str, severity: object) -> int:
    """Return a severity as an int; in JSON it is text."""
    if str(severity) not in map(str, SEVERITIES):
        raise ValueError(f'{key}[{corruption!r}]: severity {severity!r} must be 1 to 5')
    return int(severity)


def _fraction(key: str, value: object) -> float:
    """Return a value as a float; raise ValueError if it is no number from 0 to 1."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    # In this form the comparison is false for NaN as well.
    if not number or not 0 <= value <= 1:
        raise ValueError(f'{key}={value!r} must be a fraction from 0 to 1, not in percent')
    return float(value)


ALEXNET = 'AlexNet (published)'
"""Name in results of the reference of ImageNet-C. No model may have it."""


def alexnet(cells: Mapping[str, Iterable[int]]) -> tuple[dict[str, dict[int, float]], float]:
    """Return AlexNet's accuracy on ImageNet-C, as ``summarize`` takes a reference.

    Args:
        cells (Mapping): The severities that are there of each corruption; those that are not
            among the benchmark's are left out.

    Returns:
        tuple: P as fractions, ``{corruption: {severity: P}}``, and clean P.
    """
    table = {
        name: {s: (100 - _ERRORS[name][s - 1]) / 100 for s in severities}
        for name, severities in cells.items()
        if name in _ERRORS
    }
    return table, (100 - _CLEAN_ERROR) / 100


# Top-1 error of AlexNet in percent, on ImageNet and on ImageNet-C at severities 1 to 5, as in the
# code of arXiv:1903.12261.
_CLEAN_ERROR = 43.48


_ERRORS = {
    'gaussian_noise': (69.528, 82.542, 93.554, 98.138, 99.452),
    'shot_noise': (71.224, 85.108, 93.574, 98.182, 99.146),
    'impulse_noise': (78.374, 89.808, 94.870, 98.720, 99.548),
    'defocus_blur': (65.624, 73.202, 85.036, 91.364, 94.714),
    'glass_blur': (64.308, 75.054, 88.806, 91.622, 93.344),
    'motion_blur': (58.430, 70.048, 82.108, 89.750, 92.638),
    'zoom_blur': (70.008, 76.992, 80.784, 84.198, 87.198),
    'snow': (71.726, 88.392, 86.468, 91.870, 94.952),
    'frost': (61.390, 79.734, 88.790, 89.942, 93.430),
    'fog': (67.474, 76.050, 84.378, 87.260, 94.500),
    'brightness': (45.140, 48.502, 54.048, 62.166, 72.440),
    'contrast': (64.548, 76.150, 88.874, 97.760, 99.270),
    'elastic_transform': (52.596, 70.116, 55.686, 64.076, 80.554),
    'pixelate': (52.218, 54.620, 73.728, 87.092, 91.262),
    'jpeg_compression': (51.002, 54.718, 57.294, 65.458, 74.778),
}
