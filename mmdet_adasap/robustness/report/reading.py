# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What results.json says, checked, in the form that the parts of a report read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..corruptions import GROUPS
from ..protocol import FORMAT
from ..shifted_sets import FIGURES as SHIFTED
from ..shifted_sets import NAME as SET
from .checks import Node, read_json

COMPARED = ('clean', 'mPC', 'rPC')
NAME = re.compile(r'\w[\w-]*')
"""Corruptions; files are called after them."""
OTHER = 'other'
"""The group of corruptions that are in none of the benchmark's."""


class Figure(NamedTuple):
    """A number and the ends of its 95 % interval, where it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def sure(self) -> int:
        """Of a difference: 1 or -1 where the interval lies on one side of 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


NOTHING = Figure(None)


class Cost(NamedTuple):
    """What a model costs.

    Attributes:
        params (int | None): Parameters.
        flops (float | None): Multiply-accumulates of one image.
        latency_ms (float | None): Milliseconds of one image.
        image (tuple[int, ...]): Height and width of that image; empty if unknown.
        threads (int | None): Threads that the latency was measured with.
    """

    params: int | None = None
    flops: float | None = None
    latency_ms: float | None = None
    image: tuple[int, ...] = ()
    threads: int | None = None


class ClassFigures(NamedTuple):
    """P of one class, fractions; None where it has no objects."""

    clean: float | None
    mpc: float | None
    rpc: float | None


class Shift(NamedTuple):
    """A model on another test set.

    Attributes:
        figures (dict[str, Figure]): 'P' there, and 'R', its share of clean P.
        difference (dict[str, Figure]): Minus the reference, as ``figures``; empty for the
            reference.
    """

    figures: dict[str, Figure]
    difference: dict[str, Figure]


class Boxes(NamedTuple):
    """Boxes in an image: x1, y1, x2, y2 in its pixels, class numbers, scores (empty for truth)."""

    bboxes: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]
    scores: tuple[float, ...] = ()


class Guess(NamedTuple):
    """A class for an image: the true one, or a classifier's, its score and whether it is right."""

    label: int
    score: float | None = None
    right: bool = True


class Example(NamedTuple):
    """An image of which was kept what models found in it: boxes, or a class for all of it."""

    number: int
    img_id: str | int | None
    img_path: str | None
    truth: Boxes | Guess


class Unreadable(NamedTuple):
    """An image that is in no figure, and why."""

    image: str
    error: str


@dataclass(frozen=True)
class Model:
    """The figures of one model; P, mPC and rPC are fractions, CE is in percent.

    Attributes:
        view (int): Number of the pipeline that prepares its images.
        figures (dict[str, Figure]): 'clean', 'mPC' and 'rPC'.
        cells (dict[str, dict[int, Figure]]): By corruption and severity, those that are there.
        difference (dict[str, Figure]): Minus the reference, as ``figures``; empty for the
            reference.
        shifts (dict[str, Shift]): On other test sets, by their names.
        over (Mapping | None): What mPC is the mean over.
    """

    name: str
    config: str
    checkpoint: str
    view: int
    figures: dict[str, Figure]
    cells: dict[str, dict[int, Figure]]
    per_corruption: dict[str, Figure]
    per_group: dict[str, Figure]
    per_severity: dict[int, Figure]
    per_class: dict[str, ClassFigures]
    mce: float | None
    relative_mce: float | None
    ce: dict[str, float]
    relative_ce: dict[str, float]
    difference: dict[str, Figure]
    shifts: dict[str, Shift]
    cost: Cost
    over: Mapping[str, Any] | None


@dataclass(frozen=True)
class Results:
    """What results.json says.

    Attributes:
        file (Path): The file.
        protocol (dict): As it stands there.
        corruptions (list[str]): Those tested, in the order of the benchmark.
        severities (list[int]): Those tested, ascending.
        reference (str): The model that others are compared with.
        errors (str): What mCE refers to: a model, or one whose errors are published.
        finished (bool): Whether every cell is there.
        models (dict[str, Model]): By name, the reference first.
    """

    file: Path
    protocol: dict[str, Any]
    corruptions: list[str]
    severities: list[int]
    seed: int
    reference: str
    errors: str
    finished: bool
    models: dict[str, Model]
    classes: list[str]
    examples: list[Example]
    unreadable: list[Unreadable]

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Groups of corruptions with those that were tested."""
        groups: dict[str, list[str]] = {}
        for corruption in self.corruptions:
            groups.setdefault(group_of(corruption), []).append(corruption)
        return groups

    @property
    def others(self) -> list[Model]:
        """All models but the reference."""
        return [model for model in self.models.values() if model.name != self.reference]

    @property
    def images(self) -> int:
        """Number of images tested."""
        return self.protocol['dataset']['images']

    @cached_property
    def sets(self) -> list[str]:
        """The other test sets."""
        tested = [name for model in self.models.values() for name in model.shifts]
        planned = self.protocol.get('shifts')
        return list(dict.fromkeys([*(planned if isinstance(planned, dict) else ()), *tested]))

    @property
    def missing(self) -> list[tuple[str, str, int]]:
        """Model, corruption and severity of each cell that is not there; set and 0 of others."""
        # Runs that are compared need not have the same other sets.
        sets = [] if self.finished else self.sets
        missing = []
        for model in self.models.values():
            missing += [
                (model.name, corruption, severity)
                for corruption in self.corruptions
                for severity in self.severities
                if severity not in model.cells.get(corruption, {})
            ]
            missing += [(model.name, name, 0) for name in sets if name not in model.shifts]
        return missing


def group_of(corruption: str) -> str:
    """The group of the benchmark that a corruption belongs to."""
    return next((group for group, names in GROUPS.items() if corruption in names), OTHER)


def read_results(file: str | Path) -> Results:
    """Read results.json.

    Args:
        file (str | Path): The file.

    Raises:
        FileNotFoundError: If it is not there.
        MalformedResultsError: Naming the file and the key, if it is not what robustness.py writes.
    """
    return parse_results(read_json(Path(file)))


def parse_results(root: Node) -> Results:
    """Check what results.json holds, as :func:`read_results` does."""
    protocol = root['protocol']
    if protocol['format'].value != FORMAT:
        raise protocol['format'].refuse(f'is another format than {FORMAT}, the one known here')
    corruptions = [_corruption(each) for each in protocol['corruptions'].elements()]
    severities = [each.integer(1, 5) for each in protocol['severities'].elements()]
    if not corruptions or not severities:
        raise protocol['severities' if corruptions else 'corruptions'].refuse('is empty')
    protocol.get('bootstrap').optional(Node.mapping)
    for key in ('metric', 'mode'):
        protocol[key].text()
    protocol['dataset']['images'].integer(1)
    protocol['dataset']['sha256'].text()
    models = {name: _model(name, node) for name, node in root['models'].items().items()}
    for name, model in models.items():
        there = {*model.per_severity, *(s for row in model.cells.values() for s in row)}
        if not there <= set(severities):
            other = min(there - set(severities))
            raise root['models'][name].refuse(f'has severity {other}, which the protocol has not')
    reference = root['reference'].text()
    if reference not in models:
        raise root['reference'].refuse('is none of the models')
    return Results(
        file=root.file,
        protocol=protocol.mapping(),
        corruptions=sorted(dict.fromkeys(corruptions), key=_place),
        severities=sorted(set(severities)),
        seed=protocol['seed'].integer(),
        reference=reference,
        errors=root.get('mCE_reference').optional(Node.text) or reference,
        finished=root['finished'].flag(),
        models={reference: models[reference], **models},
        classes=[each.text() for each in root['classes'].elements()],
        examples=[_example(node) for node in root['examples'].elements()],
        unreadable=[
            Unreadable(node['image'].text(), node['error'].text())
            for node in root['unreadable'].elements()
        ],
    )


def read_found(node: Node, scored: bool) -> Boxes | Guess:
    """What there is in an image, as cells and examples say it: boxes, or a class.

    Raises:
        MalformedResultsError: If it is neither.
    """
    if 'label' not in node.mapping():
        return _boxes(node, scored)
    label = node['label'].integer(0)
    if not scored:
        return Guess(label)
    return Guess(label, node['score'].optional(Node.number), node['right'].flag())


def _boxes(node: Node, scored: bool) -> Boxes:
    """Boxes as cells and examples have them.

    Raises:
        MalformedResultsError: If they are none, or there are not as many labels.
    """
    boxes = tuple(
        tuple(end.number() for end in each.elements()) for each in node['bboxes'].elements()
    )
    labels = tuple(each.integer() for each in node['labels'].elements())
    scores = tuple(each.number() for each in node['scores'].elements()) if scored else ()
    if any(len(box) != 4 for box in boxes):
        raise node['bboxes'].refuse('has a box without 4 numbers')
    if len(labels) != len(boxes) or (scored and len(scores) != len(boxes)):
        raise node.refuse('has another number of boxes than of labels or scores')
    return Boxes(boxes, labels, scores)


def _place(corruption: str) -> tuple:
    """Where a corruption stands in the benchmark."""
    order = [name for names in GROUPS.values() for name in names]
    return (order.index(corruption), '') if corruption in order else (len(order), corruption)


def _model(name: str, node: Node) -> Model:
    ends = node['ci95']
    ends = Node(ends.file, ends.value or {}, ends.key)
    cost = node.get('cost').optional(_cost) or Cost()
    return Model(
        name=name,
        config=node['config'].text(),
        view=node.get('view').optional(lambda each: each.integer(0)) or 0,
        checkpoint=node['checkpoint'].text(),
        figures={key: _figure(node[key], ends.get(key), 0) for key in COMPARED},
        cells={
            corruption: _figures(row, _inner(ends.get('cells')).get(corruption), True)
            for corruption, row in node['cells'].items().items()
        },
        per_corruption=_figures(node['per_corruption'], ends.get('per_corruption')),
        per_group=_figures(node['per_group'], ends.get('per_group')),
        per_severity=_figures(node['per_severity'], ends.get('per_severity'), True),
        per_class=node['per_class'].optional(_classes) or {},
        mce=node['mCE'].optional(Node.number),
        relative_mce=node['relative_mCE'].optional(Node.number),
        ce=_numbers(node['CE']),
        relative_ce=_numbers(node['relative_CE']),
        difference=node['difference'].optional(_difference) or {},
        shifts=node.get('shifts').optional(_shifts) or {},
        cost=cost,
        over=node['over'].optional(_over),
    )


def _corruption(node: Node) -> str:
    if not NAME.fullmatch(node.text()):
        raise node.refuse('is no name of a corruption')
    return node.text()


def _inner(node: Node) -> Node:
    """An object that may be missing."""
    return Node(node.file, {} if node.value is None else node.value, node.key)


def _figure(value: Node, ends: Node, low: float) -> Figure:
    number = value.optional(lambda node: node.number(low))
    if number is None or ends.value is None:
        return Figure(number)
    pair = [end.number() for end in ends.elements()]
    if len(pair) != 2 or pair[0] > pair[1]:
        raise ends.refuse('must be the lower and the upper end of an interval')
    return Figure(number, *pair)


def _figures(values: Node, ends: Node, severities: bool = False) -> dict:
    ends = _inner(ends)
    found = {}
    for key, node in _inner(values).items().items():
        node.fraction()
        found[_severity(node, key) if severities else key] = _figure(node, ends.get(key), 0)
    return found


def _severity(node: Node, key: str) -> int:
    if key not in ('1', '2', '3', '4', '5'):
        raise node.refuse('is for no severity from 1 to 5')
    return int(key)


def _numbers(node: Node) -> dict[str, float]:
    found = {key: each.optional(Node.number) for key, each in _inner(node).items().items()}
    return {key: value for key, value in found.items() if value is not None}


def _difference(node: Node, keys: Sequence[str] = COMPARED) -> dict[str, Figure]:
    return {
        key: node[key].optional(lambda one: _figure(one['value'], one['ci95'], float('-inf')))
        or NOTHING
        for key in keys
    }


def _shifts(node: Node) -> dict[str, Shift]:
    found = {}
    for name, one in node.items().items():
        if not SET.fullmatch(name):
            raise one.refuse('is for no name of a test set')
        ends = _inner(one['ci95'])
        figures = {key: _figure(one[key], _inner(ends).get(key), 0) for key in SHIFTED}
        minus = one.get('difference').optional(lambda each: _difference(each, SHIFTED))
        found[name] = Shift(figures, minus or {})
    return found


def _classes(node: Node) -> dict[str, ClassFigures]:
    return {
        name: ClassFigures(*(one[key].optional(lambda each: each.number(0)) for key in COMPARED))
        for name, one in node.items().items()
    }


def _cost(node: Node) -> Cost:
    return Cost(
        params=node['params'].optional(lambda each: each.integer(0)),
        flops=node['flops'].optional(lambda each: each.number(0)),
        latency_ms=node['latency_ms'].optional(lambda each: each.number(0)),
        image=tuple(side.integer(1) for side in node['image'].elements()),
        threads=node['threads'].optional(lambda each: each.integer(1)),
    )


def _over(node: Node) -> dict:
    node['complete'].flag()
    node['partial'].flag()
    for corruption in node['corruptions'].elements():
        corruption.text()
    for severity in node['severities'].elements():
        severity.integer(1, 5)
    return node.mapping()


def _example(node: Node) -> Example:
    img_id = node['img_id'].value
    if img_id is not None and not isinstance(img_id, str | int):
        raise node['img_id'].refuse('must be text or a whole number')
    return Example(
        node['number'].integer(0),
        img_id,
        node['img_path'].optional(Node.text),
        read_found(node['ground_truth'], scored=False),
    )
