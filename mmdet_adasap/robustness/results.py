# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What results.json says, from the cells of a run.

``results.json``::

    {
      "protocol": {            all that the figures depend on; a run goes on if it is equal
        "format": 1,
        "metric": "pascal_voc/mAP",          what P is
        "corruptions": [...], "severities": [...],
        "seed": 0, "mode": "fast",           or "exact", or "published"
        "dataset": {"type", "images", "of", "sha256", "labels"},    images tested, of how many; the
                                             hash is of their ids, sizes and annotations; how many
                                             classes a classification set has images of
        "subset": null or N,
        "scale": X,                          if it was given
        "published": {"type", "data_root", ...},     what a published set is read from
        "shifts": {SET: as "dataset"},       other test sets
        "batch_size": ..., "device": "cpu",
        "bootstrap": {"resamples": R, "seed": ..., "interval": ...},
        "models": {NAME: {"config_sha256", "checkpoint_sha256"}},
        "versions": {...}
      },
      "reference": NAME,       what differences refer to
      "mCE_reference": NAME or "AlexNet (published)",    what mCE refers to
      "finished": true,        whether every cell is there
      "models": {NAME: {
        "config": path, "checkpoint": path,  as they were given
        "view": 0,                           number of the pipeline that prepares its images
        "clean": P,                          all P, mPC and rPC are fractions
        "cells": {corruption: {"1": P, ...}},
        "mPC": ..., "rPC": ...,              null while cells are missing, except with --partial
        "over": {"corruptions": [...], "severities": [...], "complete": bool,
                 "partial": bool, "missing": {corruption: [severities]}},
        "per_corruption": {...}, "per_group": {...}, "per_severity": {"1": ...},
        "per_class": {class: {"clean", "mPC", "rPC"}},   null for a class without objects
        "mCE": ..., "relative_mCE": ..., "CE": {...}, "relative_CE": {...},     percent
        "ci95": null or {"clean": [low, high], "mPC", "rPC", "cells": {corruption: {"1"}},
                         "per_corruption": {...}, "per_group": {...}, "per_severity": {...}},
        "shifts": {SET: {"P", "R": P / clean, "ci95": null or {"P", "R"},     other test sets
                         "difference": null or {"P": {"value", "ci95"}, "R": ...}}},
        "difference": null or {"clean": {"value", "ci95"}, "mPC": ..., "rPC": ...}
                                             this model minus the reference, on the same images
        "cost": {"params", "flops", "image": [height, width], "latency_ms", "threads"}
                                             flops are multiply-accumulates of one image
      }},
      "classes": [...],
      "examples": [{"number", "img_id", "img_path",
                    "ground_truth": {"bboxes", "labels"}, or {"label"} for a classifier}],
      "unreadable": [{"image", "error"}],    left out of every figure
      "times": {...}           seconds; with latency_ms all that differs from run to run
    }

Each cell has a file of its own, ``cells/clean.json`` or ``cells/fog-3.json``, and
``cells/SET-0.json`` is that of another test set::

    {"protocol": sha256, "corruption": "fog", "severity": 3, "unreadable": [...],
     "stamps": {image: [size, time] of the file of each that is unreadable},
     "seconds": {"images", "forward": {NAME}, "scoring": {NAME}},
     "models": {NAME: {"value": P, "per_class": {class: P}, "metrics": {...},
                       "resampled": null or [R values],
                       "examples": {number: {"bboxes", "scores", "labels"},
                                             or {"label", "score", "right"} of a classifier}}}}

``resampled`` of all cells and models belong together, draw by draw; those of another test set do
among themselves. Of a classifier's examples ``examples/NUMBER-fog-3-VIEW.jpg`` is what was seen,
and ``examples/NUMBER-none-0-VIEW.jpg`` of clean ones.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .corruptions import GROUPS
from .datasets.multi_view import CLEAN, Condition
from .engine import ConditionResult
from .metrics.bootstrap import interval
from .metrics.mpc import benchmark_corruptions, summary_of

Cells = Mapping[Condition, Mapping[str, Any]]
SUMMARIZED = (
    *('mPC', 'rPC', 'per_corruption', 'per_group'),
    *('mCE', 'relative_mCE', 'CE', 'relative_CE'),
)


def cell_to_dict(cell: ConditionResult) -> dict:
    """A cell as its file has it, without the protocol."""
    return {
        'corruption': cell.condition.corruption,
        'severity': cell.condition.severity,
        'unreadable': [one._asdict() for one in cell.unreadable],
        'seconds': cell.seconds,
        'models': {
            name: {
                'value': score.value,
                'per_class': score.per_class,
                # Some metrics say nan of a class without objects, which JSON cannot.
                'metrics': {k: v if np.isfinite(v) else None for k, v in score.metrics.items()},
                'resampled': None if score.resampled is None else score.resampled.tolist(),
                'examples': {str(i): found for i, found in cell.examples[name].items()},
            }
            for name, score in cell.scores.items()
        },
    }


def build_models(
    cells: Cells,
    names: Iterable[str],
    conditions: Iterable[Condition],
    reference: str,
    partial: bool,
    published: Callable[[Mapping], tuple] | None = None,
) -> dict[str, dict]:
    """The figures of each model, as results.json has them under 'models'.

    Args:
        cells (Mapping): The cells that are there, as :func:`cell_to_dict` gives them.
        names (Iterable[str]): The models.
        conditions (Iterable[Condition]): All cells of the run.
        reference (str): The model that others are compared with.
        partial (bool): Whether to give means over the cells that are there, if some are missing.
        published (Callable, optional): Gives the cells and clean P that mCE refers to, as
            :func:`~mmdet_adasap.robustness.metrics.mpc.alexnet` does, for the cells that are
            there. Defaults to those of the reference.
    """
    tested = [condition for condition in conditions if condition != CLEAN]
    finished = CLEAN in cells and all(condition in cells for condition in tested)
    cells = {c: cell for c, cell in cells.items() if c == CLEAN or c in tested}
    tables = {name: _Table(cells, name, tested) for name in names}
    return {
        name: table.describe(
            tables[reference] if name != reference else None, finished, partial, published
        )
        for name, table in tables.items()
    }


class _Table:
    """The cells of one model."""

    def __init__(self, cells: Cells, name: str, tested: list[Condition]) -> None:
        self.tested = tested
        self.found = {condition: cell['models'][name] for condition, cell in cells.items()}
        self.clean = self.found[CLEAN]['value'] if CLEAN in self.found else None
        self.values = self._by_corruption({c: cell['value'] for c, cell in self.found.items()})

    def describe(
        self,
        reference: '_Table | None',
        finished: bool,
        partial: bool,
        published: Callable[[Mapping], tuple] | None,
    ) -> dict:
        corruptions = dict.fromkeys(condition.corruption for condition in self.tested)
        described = {
            'clean': self.clean,
            'cells': {
                name: {str(s): p for s, p in sorted(self.values.get(name, {}).items())}
                for name in corruptions
            },
            'mPC': None,
            'rPC': None,
            'over': None,
            'per_corruption': None,
            'per_group': None,
            'per_severity': None,
            'per_class': None,
            'mCE': None,
            'relative_mCE': None,
            'CE': None,
            'relative_CE': None,
            'ci95': None,
            'difference': None,
        }
        counted = [name for name in self.values if name in benchmark_corruptions()]
        if self.clean is None or not (finished or partial):
            return described
        draws = self._draws()
        if not counted:
            described['ci95'] = _intervals(draws, described)
            return described
        # Corruptions without any cell yet are missing as a whole.
        table = {name: self.values.get(name, {}) for name in corruptions}
        other = reference or self
        errors = published(table) if published else (other.values, other.clean)
        planned = {condition.severity for condition in self.tested}
        summary = summary_of(table, self.clean, errors, partial, planned)
        described.update((key, summary[key]) for key in SUMMARIZED)
        described['per_severity'] = {str(s): p for s, p in summary['per_severity'].items()}
        described['over'] = {
            key: summary[key]
            for key in ('corruptions', 'severities', 'complete', 'partial', 'missing')
        }
        described['per_class'] = self._per_class()
        described['ci95'] = _intervals(draws, described)
        if reference is not None:
            described['difference'] = self._minus(reference, described, draws)
        return described

    def _by_corruption(self, values: Mapping[Condition, Any]) -> dict[str, dict[int, Any]]:
        table: dict[str, dict[int, Any]] = {}
        for condition in self.tested:
            if condition in values:
                table.setdefault(condition.corruption, {})[condition.severity] = values[condition]
        return table

    def _per_class(self) -> dict[str, dict]:
        described = {}
        for name, clean in self.found[CLEAN]['per_class'].items():
            rows = self._by_corruption(
                {c: cell['per_class'][name] for c, cell in self.found.items()}
            )
            mpc = None
            if clean is not None and all(None not in row.values() for row in rows.values()):
                mpc = float(_means(rows)['mPC'])
            described[name] = {'clean': clean, 'mPC': mpc, 'rPC': mpc / clean if clean else None}
        return described

    def _draws(self) -> dict[str, Any] | None:
        """Every figure in every resample, arrays of (R,)."""
        resampled = {
            c: np.array(cell['resampled'])
            for c, cell in self.found.items()
            if cell['resampled'] is not None
        }
        if len(resampled) < len(self.found):
            return None
        rows = self._by_corruption(resampled)
        draws = {'clean': resampled[CLEAN], 'cells': rows}
        if any(name in benchmark_corruptions() for name in rows):
            draws |= _means(rows)
            if draws['clean'].all():
                draws['rPC'] = draws['mPC'] / draws['clean']
        return draws

    def _minus(self, reference: '_Table', described: dict, draws: dict | None) -> dict:
        theirs = reference._draws()
        figures = {}
        for key in ('clean', 'mPC', 'rPC'):
            mine, other = self._figure(key, described), reference._figure(key)
            if mine is None or other is None:
                figures[key] = None
                continue
            drawn = draws is not None and theirs is not None and key in draws and key in theirs
            figures[key] = {
                'value': mine - other,
                'ci95': interval(draws[key] - theirs[key], mine - other) if drawn else None,
            }
        return figures

    def _figure(self, key: str, described: dict | None = None) -> float | None:
        if key == 'clean':
            return self.clean
        if described is not None:
            return described[key]
        mpc = float(_means(self.values)['mPC'])
        return mpc if key == 'mPC' else (mpc / self.clean if self.clean else None)


def _means(rows: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """The means of :func:`summarize`, for numbers or for arrays of resamples."""
    by_corruption = {name: np.mean(list(row.values()), axis=0) for name, row in rows.items()}
    counted = [name for name in rows if name in benchmark_corruptions()]
    severities = sorted({s for name in counted for s in rows[name]})
    return {
        'mPC': np.mean([by_corruption[name] for name in counted], axis=0),
        'per_corruption': by_corruption,
        'per_group': {
            group: np.mean([by_corruption[name] for name in names if name in counted], axis=0)
            for group, names in GROUPS.items()
            if any(name in counted for name in names)
        },
        'per_severity': {
            s: np.mean([rows[name][s] for name in counted if s in rows[name]], axis=0)
            for s in severities
        },
    }


def _intervals(draws: Any, estimates: Any, key: str = '') -> Any:
    """The interval of every figure that was resampled."""
    if draws is None or estimates is None:
        return None
    if isinstance(draws, Mapping):
        return {
            str(name): _intervals(each, estimates[str(name)], name) for name, each in draws.items()
        }
    # A fraction, except that a model may be better on corrupted images than on clean ones.
    return interval(draws, estimates, (0, np.inf) if key == 'rPC' else (0, 1))
