# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The content of results.json as dataclasses, which all parts of a report read.

:mod:`.parser` makes them from the file and checks it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..corruptions import BENCHMARK, GROUPS

HEADLINE_METRICS = ('clean', 'mPC', 'rPC')
"""The metrics of a whole model that a report compares; 'clean' is P on clean images."""
OTHER_GROUP = 'other'
"""The group of corruptions that are in none of the benchmark's groups."""


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval; None where they are not known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def significant_sign(self) -> int:
        """The sign of a difference if its interval excludes 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        # An interval that ends at 0 holds it.
        return int(self.low > 0) - int(self.high < 0)


UNKNOWN = Estimate(None)


class Cost(NamedTuple):
    """What it costs to store and run a model.

    Attributes:
        params (int | None): Number of parameters.
        flops (float | None): Multiply-accumulates of one image.
        latency_ms (float | None): Milliseconds of one image, the median.
        image (tuple[int, ...]): Height and width of that image; empty if unknown.
        threads (int | None): Threads that the latency was measured with.
        latency_low_ms (float | None): Its lower quartile; None in files of older versions.
        latency_high_ms (float | None): Its upper quartile.
    """

    params: int | None = None
    flops: float | None = None
    latency_ms: float | None = None
    image: tuple[int, ...] = ()
    threads: int | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None

    @property
    def latency_spread(self) -> tuple[float, float] | None:
        """Both quartiles of the latency; None if they are not known."""
        ends = self.latency_low_ms, self.latency_high_ms
        return None if None in (*ends, self.latency_ms) else ends


class ClassMetrics(NamedTuple):
    """P of one class, fractions; None for a class without objects."""

    clean: float | None
    mpc: float | None
    rpc: float | None


class ShiftedSetResult(NamedTuple):
    """A model on another test set of the same classes, as ImageNet-V2.

    Attributes:
        metrics (dict[str, Estimate]): 'P' on that set, and 'R', its ratio to clean P.
        difference (dict[str, Estimate]): ``metrics`` minus those of the reference; empty for the
            reference itself.
    """

    metrics: dict[str, Estimate]
    difference: dict[str, Estimate]


class Boxes(NamedTuple):
    """Boxes in an image.

    Attributes:
        bboxes (tuple[tuple[float, ...], ...]): x1, y1, x2, y2 in pixels of the image.
        labels (tuple[int, ...]): Class numbers.
        scores (tuple[float, ...]): Scores; empty for ground truth.
    """

    bboxes: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    scores: tuple[float, ...] = ()


class ClassPrediction(NamedTuple):
    """The class of an image: the true one, or that of a classifier with score and correctness."""

    label: int
    score: float | None = None
    right: bool = True


class Example(NamedTuple):
    """An image whose predictions the run kept; its truth is boxes, or one class."""

    number: int
    img_id: str | int | None
    img_path: str | None
    truth: Boxes | ClassPrediction


class UnreadableImage(NamedTuple):
    """An image that could not be read, and why."""

    image: str
    error: str


@dataclass(frozen=True)
class ModelResults:
    """The results of one model; P, mPC and rPC are fractions, CE is in percent.

    Attributes:
        view (int): Number of the pipeline that prepares its images.
        metrics (dict[str, Estimate]): By ``HEADLINE_METRICS``.
        cells (dict[str, dict[int, Estimate]]): P by corruption and severity, without the missing
            cells.
        difference (dict[str, Estimate]): ``metrics`` minus those of the reference; empty for the
            reference itself.
        shifted_sets (dict[str, ShiftedSetResult]): By the name of the other test set.
        mean_over (Mapping | None): The corruptions and severities that mPC is the mean over.
    """

    name: str
    config: str
    checkpoint: str
    view: int
    metrics: dict[str, Estimate]
    cells: dict[str, dict[int, Estimate]]
    per_corruption: dict[str, Estimate]
    per_group: dict[str, Estimate]
    per_severity: dict[int, Estimate]
    per_class: dict[str, ClassMetrics]
    mce: float | None
    relative_mce: float | None
    ce: dict[str, float]
    relative_ce: dict[str, float]
    difference: dict[str, Estimate]
    shifted_sets: dict[str, ShiftedSetResult]
    cost: Cost
    mean_over: Mapping[str, Any] | None

    def severity_means(
        self, corruptions: Sequence[str], severities: Sequence[int]
    ) -> dict[int, Estimate]:
        """Return the mean of P over some corruptions, at each severity that has all of them."""
        rows = [self.cells.get(corruption, {}) for corruption in corruptions]
        return {
            severity: Estimate(float(np.mean([row[severity].value for row in rows])))
            for severity in severities
            # A mean over other corruptions at one severity would not compare with its neighbours.
            if all(severity in row for row in rows)
        }


@dataclass(frozen=True)
class Results:
    """The content of results.json.

    Attributes:
        file (Path): The file.
        protocol (dict): The protocol as it stands in the file.
        corruptions (list[str]): Corruptions tested, in the order of the benchmark.
        severities (list[int]): Severities tested, ascending.
        seed (int): Seed of the corruptions.
        reference (str): The model that others are compared with.
        mce_reference (str): What mCE refers to: a model, or one whose errors are published.
        finished (bool): Whether every cell is there.
        models (dict[str, ModelResults]): By name, the reference first.
        classes (list[str]): Names of the classes, by their numbers.
    """

    file: Path
    protocol: dict[str, Any]
    corruptions: list[str]
    severities: list[int]
    seed: int
    reference: str
    mce_reference: str
    finished: bool
    models: dict[str, ModelResults]
    classes: list[str]
    examples: list[Example]
    unreadable: list[UnreadableImage]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The tested corruptions by group."""
        groups: dict[str, list[str]] = {}
        for corruption in self.corruptions:
            groups.setdefault(group_of(corruption), []).append(corruption)
        return groups

    @property
    def counted_corruptions(self) -> list[str]:
        """The tested corruptions that mPC, rPC and mCE are over: those of the benchmark."""
        return [name for name in self.corruptions if name in BENCHMARK]

    @property
    def compared_models(self) -> list[ModelResults]:
        """All models but the reference."""
        return [model for model in self.models.values() if model.name != self.reference]

    @property
    def image_count(self) -> int:
        """Number of images tested."""
        return self.protocol['dataset']['images']

    @cached_property
    def shifted_sets(self) -> list[str]:
        """Names of the other test sets, planned or tested."""
        # Planned ones may have no results yet; they come first, in the order that was asked for.
        tested = [name for model in self.models.values() for name in model.shifted_sets]
        planned = self.protocol.get('shifts')
        return list(dict.fromkeys([*(planned if isinstance(planned, dict) else ()), *tested]))

    @property
    def missing(self) -> list[tuple[str, str, int]]:
        """Model, corruption and severity of each missing cell; set and 0 for other test sets."""
        # Runs that are compared may have different other sets, which is no missing cell; such
        # runs are finished.
        shifted_sets = [] if self.finished else self.shifted_sets
        missing = []
        for model in self.models.values():
            missing += [
                (model.name, corruption, severity)
                for corruption in self.corruptions
                for severity in self.severities
                if severity not in model.cells.get(corruption, {})
            ]
            missing += [
                (model.name, name, 0) for name in shifted_sets if name not in model.shifted_sets
            ]
        return missing

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number if it has none."""
        # Checked, as -1 would name the last class.
        known = 0 <= label < len(self.classes)
        return self.classes[label] if known else f'class {label}'


def group_of(corruption: str) -> str:
    """Return the benchmark's group of a corruption, or ``OTHER_GROUP``."""
    return next((group for group, names in GROUPS.items() if corruption in names), OTHER_GROUP)
