# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The content of results.json, computed from the cells of a run; a cell is one condition.

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
        "shifts": {SET: as "dataset"},       shifted test sets
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
        "mPC": ..., "rPC": ...,              null while cells are missing, except with --partial,
                                             and where no corruption is of the benchmark
        "over": {"corruptions": [...], "severities": [...], "complete": bool,
                 "partial": bool, "missing": {corruption: [severities]}},
        "per_corruption": {...}, "per_group": {...}, "per_severity": {"1": ...},
        "per_class": {class: {"clean", "mPC", "rPC"}},   null for a class without objects
        "mCE": ..., "relative_mCE": ..., "CE": {...}, "relative_CE": {...},     percent
        "ci95": null or {"clean": [low, high], "mPC", "rPC", "cells": {corruption: {"1"}},
                         "per_corruption": {...}, "per_group": {...}, "per_severity": {...}},
        "shifts": {SET: {"P", "R": P / clean, "ci95": null or {"P", "R"},     shifted test sets
                         "difference": null or {"P": {"value", "ci95"}, "R": ...}}},
        "difference": null or {"clean": {"value", "ci95"}, "mPC": ..., "rPC": ...}
                                             this model minus the reference, on the same images
        "cost": {"params", "flops", "image": [height, width], "latency_ms", "threads",
                 "latency_low_ms", "latency_high_ms"}
                                             flops are multiply-accumulates of one image; low and
                                             high are quartiles, which older files have not
      }},
      "classes": [...],
      "examples": [{"number", "img_id", "img_path",
                    "ground_truth": {"bboxes", "labels"}, or {"label"} for a classifier}],
      "unreadable": [{"image", "error"}],    left out of every figure
      "times": {...}           seconds; with latencies all that differs from run to run
    }

Each cell has a file of its own, ``cells/clean.json`` or ``cells/fog-3.json``, and
``cells/SET-0.json`` is that of a shifted test set::

    {"protocol": sha256, "corruption": "fog", "severity": 3, "unreadable": [...],
     "stamps": {image: [size, time] of the file of each that is unreadable},
     "seconds": {"images", "forward": {NAME}, "scoring": {NAME}},
     "models": {NAME: {"value": P, "per_class": {class: P}, "metrics": {...},
                       "resampled": null or [R values],
                       "examples": {number: {"bboxes", "scores", "labels"},
                                             or {"label", "score", "right"} of a classifier}}}}

``resampled`` of all cells and models have the same resamples in the same order; those of a shifted
test set have their own. A classifier was given ``examples/NUMBER-fog-3-VIEW.jpg``, and of clean
images ``examples/NUMBER-none-0-VIEW.jpg``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from .corruptions import BENCHMARK
from .datasets import CLEAN, Condition
from .engine import ConditionResult
from .metrics import interval, mean_performance, paired_difference, summarize

Cells = Mapping[Condition, Mapping[str, Any]]
SUMMARIZED = (
    *('mPC', 'rPC', 'per_corruption', 'per_group'),
    *('mCE', 'relative_mCE', 'CE', 'relative_CE'),
)


def cell_to_dict(cell: ConditionResult) -> dict:
    """Convert the results of a condition to a cell as its file has it, without the protocol."""
    return {
        'corruption': cell.condition.corruption,
        'severity': cell.condition.severity,
        'unreadable': [one._asdict() for one in cell.unreadable],
        'seconds': cell.seconds,
        'models': {
            name: {
                'value': score.value,
                'per_class': score.per_class,
                # Some metrics give nan for a class without objects, and JSON has no nan.
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
    """Compute the figures of each model, as results.json has them under 'models'.

    Args:
        cells (Mapping): The cells that exist, as :func:`cell_to_dict` gives them.
        names (Iterable[str]): The models.
        conditions (Iterable[Condition]): All conditions of the run.
        reference (str): The model that others are compared with.
        partial (bool): Whether to give means over the existing cells, if some are missing.
        published (Callable, optional): Function from the existing cells to the cells and clean P
            that mCE refers to, as :func:`~mmdet_adasap.robustness.metrics.mpc.alexnet`. Defaults
            to those of the reference.

    Returns:
        dict[str, dict]: For each model its figures, None where they are not known yet.
    """
    tested = [condition for condition in conditions if condition != CLEAN]
    finished = CLEAN in cells and all(condition in cells for condition in tested)
    cells = {c: cell for c, cell in cells.items() if c == CLEAN or c in tested}
    models = {name: _Model(cells, name, tested) for name in names}
    return {
        name: model.figures(
            models[reference] if name != reference else None, finished, partial, published
        )
        for name, model in models.items()
    }


class _Model:
    """The cells of one model, and the figures computed from them."""

    def __init__(self, cells: Cells, name: str, tested: list[Condition]) -> None:
        self.tested = tested
        self.cells = {condition: cell['models'][name] for condition, cell in cells.items()}
        self.clean = self.cells[CLEAN]['value'] if CLEAN in self.cells else None
        self.values = self._by_corruption({c: cell['value'] for c, cell in self.cells.items()})

    def figures(
        self,
        reference: '_Model | None',
        finished: bool,
        partial: bool,
        published: Callable[[Mapping], tuple] | None,
    ) -> dict:
        corruptions = dict.fromkeys(condition.corruption for condition in self.tested)
        figures = {
            'clean': self.clean,
            'cells': {
                name: {str(s): p for s, p in sorted(self.values.get(name, {}).items())}
                for name in corruptions
            },
            **dict.fromkeys(('mPC', 'rPC', 'over')),
            **dict.fromkeys(('per_corruption', 'per_group', 'per_severity', 'per_class')),
            **dict.fromkeys(('mCE', 'relative_mCE', 'CE', 'relative_CE')),
            **dict.fromkeys(('ci95', 'difference')),
        }
        if self.clean is None or not (finished or partial):
            return figures
        resampled = self._resampled()
        if not any(name in BENCHMARK for name in self.values):
            # There is no mean over corruptions beyond the benchmark, but all else compares.
            figures['per_corruption'] = {
                name: float(np.mean(list(row.values()))) for name, row in self.values.items()
            }
            figures['ci95'] = _intervals(resampled, figures)
            if reference is not None:
                figures['difference'] = self._difference(reference, figures, resampled)
            return figures
        # Corruptions without any cell yet are missing as a whole.
        table = {name: self.values.get(name, {}) for name in corruptions}
        other = reference or self
        errors = published(table) if published else (other.values, other.clean)
        severities = {condition.severity for condition in self.tested}
        summary = summarize(
            table,
            self.clean,
            reference=errors,
            partial=partial,
            severities=severities,
            allow_zero_clean=True,
        )
        figures.update((key, summary[key]) for key in SUMMARIZED)
        # JSON has text as keys, and figures of a new run are to equal those that are read.
        figures['per_severity'] = {str(s): p for s, p in summary['per_severity'].items()}
        figures['over'] = {
            key: summary[key]
            for key in ('corruptions', 'severities', 'complete', 'partial', 'missing')
        }
        figures['per_class'] = self._per_class()
        figures['ci95'] = _intervals(resampled, figures)
        if reference is not None:
            figures['difference'] = self._difference(reference, figures, resampled)
        return figures

    def _by_corruption(self, values: Mapping[Condition, Any]) -> dict[str, dict[int, Any]]:
        table: dict[str, dict[int, Any]] = {}
        for condition in self.tested:
            if condition in values:
                table.setdefault(condition.corruption, {})[condition.severity] = values[condition]
        return table

    def _per_class(self) -> dict[str, dict]:
        per_class = {}
        for name, clean in self.cells[CLEAN]['per_class'].items():
            rows = self._by_corruption(
                {c: cell['per_class'][name] for c, cell in self.cells.items()}
            )
            mpc = None
            if clean is not None and all(None not in row.values() for row in rows.values()):
                mpc = float(mean_performance(rows)['mPC'])
            per_class[name] = {'clean': clean, 'mPC': mpc, 'rPC': mpc / clean if clean else None}
        return per_class

    def _resampled(self) -> dict[str, Any] | None:
        """Return every figure in every resample, arrays of (R,); None if a cell has none."""
        resampled = {
            c: np.array(cell['resampled'])
            for c, cell in self.cells.items()
            if cell['resampled'] is not None
        }
        if len(resampled) < len(self.cells):
            return None
        rows = self._by_corruption(resampled)
        figures = {'clean': resampled[CLEAN], 'cells': rows}
        if any(name in BENCHMARK for name in rows):
            figures |= mean_performance(rows)
            # A resample without any clean hit has no rPC, and then the interval has no meaning.
            if figures['clean'].all():
                figures['rPC'] = figures['mPC'] / figures['clean']
        else:
            figures['per_corruption'] = {
                name: np.mean(list(row.values()), axis=0) for name, row in rows.items()
            }
        return figures

    def _difference(self, reference: '_Model', figures: dict, resampled: dict | None) -> dict:
        mine, theirs = resampled or {}, reference._resampled() or {}
        difference = {}
        for key in ('clean', 'mPC', 'rPC'):
            value = figures[key]
            other = None if value is None else reference._figure(key)
            difference[key] = None
            if other is not None:
                difference[key] = paired_difference(value, other, mine.get(key), theirs.get(key))
        return difference

    def _figure(self, key: str) -> float | None:
        if key == 'clean':
            return self.clean
        mpc = float(mean_performance(self.values)['mPC'])
        return mpc if key == 'mPC' else (mpc / self.clean if self.clean else None)


def _intervals(resampled: Any, figures: Any, key: str = '') -> Any:
    """Return the interval of every figure that was resampled, nested as the figures are."""
    if resampled is None or figures is None:
        return None
    if isinstance(resampled, Mapping):
        return {
            str(name): _intervals(each, figures[str(name)], name)
            for name, each in resampled.items()
        }
    # All are fractions but rPC: a model may be better on corrupted images than on clean ones.
    return interval(resampled, figures, (0, np.inf) if key == 'rPC' else (0, 1))
