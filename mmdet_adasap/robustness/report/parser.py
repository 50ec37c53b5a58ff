# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""results.json, checked key by key and turned into the dataclasses of :mod:`.schema`."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from ..corruptions import BENCHMARK, SEVERITIES
from ..protocol import FORMAT
from ..shifted_sets import FIGURES as SHIFTED_METRICS
from ..shifted_sets import NAME as SET_NAME
from .json_node import JsonNode, read_json
from .schema import (
    HEADLINE_METRICS,
    UNKNOWN,
    Boxes,
    ClassMetrics,
    ClassPrediction,
    Cost,
    Estimate,
    Example,
    ModelResults,
    Results,
    ShiftedSetResult,
    UnreadableImage,
)

CORRUPTION_NAME = re.compile(r'\w[\w-]*')
"""Names of files of cells begin with it, so it must not hold a path."""


def read_results(file: str | Path) -> Results:
    """Read and check results.json.

    Args:
        file (str | Path): The file.

    Returns:
        Results: Its content.

    Raises:
        FileNotFoundError: If it is not there.
        MalformedResultsError: Naming the file and the key, if it is not what robustness.py writes.
    """
    return parse_results(read_json(Path(file)))


def parse_results(root: JsonNode) -> Results:
    """Check the content of results.json, as :func:`read_results` does."""
    protocol = root['protocol']
    corruptions, severities = _parse_protocol(protocol)
    models = {name: _parse_model(name, node) for name, node in root['models'].items().items()}
    # A severity that the protocol has not would have no column in any table.
    for name, model in models.items():
        used = {*model.per_severity, *(s for row in model.cells.values() for s in row)}
        if not used <= set(severities):
            other = min(used - set(severities))
            raise root['models'][name].error(f'has severity {other}, which the protocol has not')
    reference = root['reference'].text()
    if reference not in models:
        raise root['reference'].error('is none of the models')
    return Results(
        file=root.file,
        protocol=protocol.mapping(),
        corruptions=sorted(dict.fromkeys(corruptions), key=_benchmark_order),
        severities=sorted(set(severities)),
        seed=protocol['seed'].integer(),
        reference=reference,
        mce_reference=root.get('mCE_reference').optional(JsonNode.text) or reference,
        finished=root['finished'].flag(),
        # A dict keeps the place of the first entry, so the reference comes first.
        models={reference: models[reference], **models},
        classes=[node.text() for node in root['classes'].elements()],
        examples=[_parse_example(node) for node in root['examples'].elements()],
        unreadable=[
            UnreadableImage(node['image'].text(), node['error'].text())
            for node in root['unreadable'].elements()
        ],
    )


def parse_prediction(node: JsonNode, scored: bool) -> Boxes | ClassPrediction:
    """Parse what there is in an image, as cells and examples have it: boxes, or a class.

    Args:
        node (JsonNode): The prediction or the ground truth.
        scored (bool): Whether it has scores, as predictions have.

    Returns:
        Boxes | ClassPrediction: Which of the two it is follows from its keys.

    Raises:
        MalformedResultsError: If it is neither.
    """
    if 'label' not in node.mapping():
        return _parse_boxes(node, scored)
    label = node['label'].integer(0)
    if not scored:
        return ClassPrediction(label)
    score = node['score'].optional(JsonNode.number)
    return ClassPrediction(label, score, node['right'].flag())


def _parse_protocol(protocol: JsonNode) -> tuple[list[str], list[int]]:
    """Check the keys of the protocol that a report reads; return corruptions and severities."""
    if protocol['format'].value != FORMAT:
        raise protocol['format'].error(f'is another format than {FORMAT}, the one known here')
    corruptions = [_parse_corruption(node) for node in protocol['corruptions'].elements()]
    severities = [_parse_severity(node) for node in protocol['severities'].elements()]
    if not corruptions or not severities:
        raise protocol['severities' if corruptions else 'corruptions'].error('is empty')
    protocol.get('bootstrap').optional(JsonNode.mapping)
    for key in ('metric', 'mode'):
        protocol[key].text()
    protocol['dataset']['images'].integer(1)
    protocol['dataset']['sha256'].text()
    return corruptions, severities


def _parse_corruption(node: JsonNode) -> str:
    if not CORRUPTION_NAME.fullmatch(node.text()):
        raise node.error('is no name of a corruption')
    return node.text()


def _parse_severity(node: JsonNode) -> int:
    return node.integer(SEVERITIES[0], SEVERITIES[-1])


def _benchmark_order(corruption: str) -> tuple:
    """Return a sort key: the place in the benchmark; other corruptions follow by name."""
    if corruption in BENCHMARK:
        return BENCHMARK.index(corruption), ''
    return len(BENCHMARK), corruption


def _parse_model(name: str, node: JsonNode) -> ModelResults:
    # null without intervals; the keys inside may be null as well.
    ci95 = node['ci95']
    intervals = JsonNode(ci95.file, ci95.value or {}, ci95.key)
    return ModelResults(
        name=name,
        config=node['config'].text(),
        view=node.get('view').optional(lambda view: view.integer(0)) or 0,
        checkpoint=node['checkpoint'].text(),
        metrics={
            key: _parse_estimate(node[key], intervals.get(key), 0) for key in HEADLINE_METRICS
        },
        cells={
            corruption: _by_severity(row, intervals.get('cells').or_empty().get(corruption))
            for corruption, row in node['cells'].items().items()
        },
        per_corruption=_by_key(node['per_corruption'], intervals.get('per_corruption')),
        per_group=_by_key(node['per_group'], intervals.get('per_group')),
        per_severity=_by_severity(node['per_severity'], intervals.get('per_severity')),
        per_class=node['per_class'].optional(_parse_classes) or {},
        mce=node['mCE'].optional(JsonNode.number),
        relative_mce=node['relative_mCE'].optional(JsonNode.number),
        ce=_parse_numbers(node['CE']),
        relative_ce=_parse_numbers(node['relative_CE']),
        difference=node['difference'].optional(_parse_difference) or {},
        shifted_sets=node.get('shifts').optional(_parse_shifted_sets) or {},
        cost=node.get('cost').optional(_parse_cost) or Cost(),
        mean_over=node['over'].optional(_parse_mean_over),
    )


def _parse_estimate(value: JsonNode, interval: JsonNode, lowest: float) -> Estimate:
    number = value.optional(lambda node: node.number(lowest))
    if number is None or interval.value is None:
        return Estimate(number)
    ends = [end.number() for end in interval.elements()]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise interval.error('must be the lower and the upper end of an interval')
    return Estimate(number, *ends)


def _by_key(values: JsonNode, intervals: JsonNode) -> dict[str, Estimate]:
    intervals = intervals.or_empty()
    estimates = {}
    for key, node in values.or_empty().items().items():
        # Not null: cells and means that are missing have no key.
        node.fraction()
        estimates[key] = _parse_estimate(node, intervals.get(key), 0)
    return estimates


def _by_severity(values: JsonNode, intervals: JsonNode) -> dict[int, Estimate]:
    nodes = values.or_empty().items()
    for key, node in nodes.items():
        node.fraction()
        # Keys of JSON are text, and int() would also take ' 1' and '1_0'.
        if key not in map(str, SEVERITIES):
            raise node.error(f'is for no severity from {SEVERITIES[0]} to {SEVERITIES[-1]}')
    return {int(key): estimate for key, estimate in _by_key(values, intervals).items()}


def _parse_numbers(node: JsonNode) -> dict[str, float]:
    numbers = {
        key: value.optional(JsonNode.number) for key, value in node.or_empty().items().items()
    }
    return {key: value for key, value in numbers.items() if value is not None}


def _parse_difference(
    node: JsonNode, keys: Sequence[str] = HEADLINE_METRICS
) -> dict[str, Estimate]:
    # Differences may be negative, and one of figures that are missing is null.
    def read(estimate: JsonNode) -> Estimate:
        return _parse_estimate(estimate['value'], estimate['ci95'], -math.inf)

    return {key: node[key].optional(read) or UNKNOWN for key in keys}


def _parse_shifted_sets(node: JsonNode) -> dict[str, ShiftedSetResult]:
    results = {}
    for name, one in node.items().items():
        if not SET_NAME.fullmatch(name):
            raise one.error('is for no name of a test set')
        intervals = one['ci95'].or_empty()
        metrics = {
            key: _parse_estimate(one[key], intervals.get(key), 0) for key in SHIFTED_METRICS
        }
        difference = one.get('difference').optional(
            lambda each: _parse_difference(each, SHIFTED_METRICS)
        )
        results[name] = ShiftedSetResult(metrics, difference or {})
    return results


def _parse_classes(node: JsonNode) -> dict[str, ClassMetrics]:
    # rPC may be above 1, so there is only a lower limit.
    def read(value: JsonNode) -> float:
        return value.number(0)

    return {
        name: ClassMetrics(*(one[key].optional(read) for key in HEADLINE_METRICS))
        for name, one in node.items().items()
    }


def _parse_cost(node: JsonNode) -> Cost:
    quartiles = {
        key: node.get(key).optional(lambda value: value.number(0))
        for key in ('latency_low_ms', 'latency_high_ms')
    }
    return Cost(
        **quartiles,
        params=node['params'].optional(lambda value: value.integer(0)),
        flops=node['flops'].optional(lambda value: value.number(0)),
        latency_ms=node['latency_ms'].optional(lambda value: value.number(0)),
        image=tuple(side.integer(1) for side in node['image'].elements()),
        threads=node['threads'].optional(lambda value: value.integer(1)),
    )


def _parse_mean_over(node: JsonNode) -> dict:
    node['complete'].flag()
    node['partial'].flag()
    for corruption in node['corruptions'].elements():
        corruption.text()
    for severity in node['severities'].elements():
        _parse_severity(severity)
    return node.mapping()


def _parse_example(node: JsonNode) -> Example:
    img_id = node['img_id'].value
    if img_id is not None and not isinstance(img_id, str | int):
        raise node['img_id'].error('must be text or a whole number')
    return Example(
        node['number'].integer(0),
        img_id,
        node['img_path'].optional(JsonNode.text),
        parse_prediction(node['ground_truth'], scored=False),
    )


def _parse_boxes(node: JsonNode, scored: bool) -> Boxes:
    boxes = tuple(
        tuple(end.number() for end in box.elements()) for box in node['bboxes'].elements()
    )
    labels = tuple(label.integer() for label in node['labels'].elements())
    scores = tuple(score.number() for score in node['scores'].elements()) if scored else ()
    if any(len(box) != 4 for box in boxes):
        raise node['bboxes'].error('has a box without 4 numbers')
    if len(labels) != len(boxes) or (scored and len(scores) != len(boxes)):
        raise node.error('has another number of boxes than of labels or scores')
    return Boxes(boxes, labels, scores)
