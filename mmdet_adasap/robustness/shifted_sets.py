# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Shifted test sets, other images of the same classes as ImageNet-V2: P and R = P / clean P."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..integration import without_pipeline
from .datasets import CLEAN, Condition, restrict_to_labels
from .metrics import interval, paired_difference
from .test_set import TestSet, build_test_set

NAME = re.compile(r'[^\W_][\w.-]*')
"""What a shifted set may be called; files get its name."""
FIGURES = ('P', 'R')
LIMITS = {'P': (0, 1), 'R': (0, np.inf)}
"""A model may be better on shifted images than on clean ones, so R may be above 1."""


def build_shifted_sets(
    configs: Mapping[str, dict],
    dataloaders: Mapping[str, Any],
    test_set: TestSet,
    subset: int | None,
) -> dict[Condition, TestSet]:
    """Build shifted test sets, prepared for each model as its config prepares the test set.

    Args:
        configs (Mapping[str, dict]): Configs of datasets without pipeline, by names of sets.
        dataloaders (Mapping[str, ConfigDict]): The test_dataloader of each model.
        test_set (TestSet): The test set.
        subset (int, optional): How many images to take of each; all if there are fewer.

    Returns:
        dict[Condition, TestSet]: Each with the condition that its cell is stored under.

    Raises:
        ValueError: If a name cannot be that of a file, or a set has other classes.
    """
    sets = {}
    for name, dataset in configs.items():
        # R compares with the clean P. If the test set has a part of the classes, so must this.
        if test_set.labels:
            dataset = restrict_to_labels(dataset, test_set.labels)
        if not NAME.fullmatch(name) or name == CLEAN.corruption:
            raise ValueError(
                f'shifted_sets: {name!r} is no name for a set: use letters, digits, dots and '
                f'dashes, beginning with a letter or digit, and not {CLEAN.corruption!r}'
            )
        loaders = {}
        for model, loader in dataloaders.items():
            _, pipeline = without_pipeline(loader.dataset.to_dict())
            loaders[model] = {**loader.to_dict(), 'dataset': {**dataset, 'pipeline': pipeline}}
        try:
            shifted = build_test_set(loaders, subset, key=name, allow_fewer=True)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        if shifted.metainfo.get('classes') != test_set.metainfo.get('classes'):
            raise ValueError(
                f'{name} has other classes than the test set: test it with a config for them'
            )
        # Severities of corruptions begin with 1, so 0 marks what is no corruption.
        sets[Condition(name, 0)] = shifted
    return sets


def build_shifts(
    cell: Mapping, clean: Mapping, names: Iterable[str], reference: str
) -> dict[str, dict]:
    """Compute the figures of each model on a shifted set, as results.json has them in 'shifts'.

    Args:
        cell (Mapping): The cell of that set, as
            :func:`~mmdet_adasap.robustness.results.cell_to_dict` gives it.
        clean (Mapping): The cell of the clean test set.
        names (Iterable[str]): The models.
        reference (str): The model that others are compared with, on the same images; where it is
            none of the models there are no differences.

    Returns:
        dict[str, dict]: For each model 'P', 'R', 'ci95' and 'difference'.
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
    """P and R of one model, and their values in each resample where it was resampled, (R,)."""

    values: dict[str, float | None]
    resampled: dict[str, np.ndarray]

    @classmethod
    def of(cls, shifted: Mapping[str, Any], clean: Mapping[str, Any]) -> '_Shift':
        """Compute P and R from the cells of a model."""
        p, clean_p = shifted['value'], clean['value']
        resampled = {}
        if shifted['resampled'] is not None and clean['resampled'] is not None:
            # Both sets are resampled by themselves, so pairing by number is as good as any.
            resampled['P'] = np.array(shifted['resampled'])
            clean_resampled = np.array(clean['resampled'])
            if clean_p and clean_resampled.all():
                resampled['R'] = resampled['P'] / clean_resampled
        return cls({'P': p, 'R': p / clean_p if clean_p else None}, resampled)

    def intervals(self) -> dict[str, list[float] | None] | None:
        """Return the 95 % intervals of P and R; None if there are no resamples."""
        if not self.resampled:
            return None
        intervals = {
            key: interval(values, self.values[key], LIMITS[key])
            for key, values in self.resampled.items()
        }
        return {'R': None, **intervals}

    def minus(self, other: '_Shift') -> dict[str, dict | None]:
        """Return the differences to another model, None where a value is missing."""
        return {
            key: None
            if self.values[key] is None or other.values[key] is None
            else paired_difference(
                self.values[key],
                other.values[key],
                self.resampled.get(key),
                other.resampled.get(key),
            )
            for key in FIGURES
        }
