# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The metrics of a config's evaluator, and the images that each of them is for."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.evaluator import BaseMetric, Evaluator

from ...integration import type_name


class Names(NamedTuple):
    """What the user calls the parts of a test, for messages.

    Attributes:
        evaluator (str): The evaluator. Defaults to 'test_evaluator'.
        metric (str): The setting that names P. Defaults to '--metric'.
        scale (str): The factor of P. Defaults to '--scale'.
    """

    evaluator: str = 'test_evaluator'
    metric: str = '--metric'
    scale: str = '--scale'


class MeasuredPart(NamedTuple):
    """The dataset that a figure is of, with what measures it.

    Attributes:
        dataloader (Mapping): A config's dataloader, of this dataset alone.
        evaluator (Mapping | Sequence): The metrics that see all of its images.
        metric (str | None): Name of P among theirs, if it was named.
    """

    dataloader: Mapping
    evaluator: Mapping | Sequence
    metric: str | None


def select_part(
    dataloader: Mapping,
    evaluator: Mapping | Sequence,
    metric: str | None = None,
    names: Names = Names(),  # noqa: B008 - a NamedTuple cannot change
) -> MeasuredPart:
    """Select the dataset that a figure is of, where an evaluator has a metric for each of several.

    mmdet's MultiDatasetsEvaluator gives each metric the images of one part of a ConcatDataset,
    and begins the names of its figures with the part's prefix. P is of one part then: it is tested
    alone, as if the config had no other.

    Args:
        dataloader (Mapping): A config's dataloader.
        evaluator (Mapping | Sequence): Its evaluator: a metric, a list of them, or an evaluator
            with ``metrics``.
        metric (str, optional): Name of P, as 'voc07/pascal_voc/mAP'.
        names (Names): For messages.

    Returns:
        MeasuredPart: What was given, where the metrics see all images.

    Raises:
        ValueError: If the evaluator is of another kind, its parts are not those of the dataset, or
            ``metric`` names none of them.
    """
    if not isinstance(evaluator, Mapping) or 'metrics' not in evaluator:
        return MeasuredPart(dataloader, evaluator, metric)
    kind = type_name(evaluator) if 'type' in evaluator else 'Evaluator'
    if kind == 'Evaluator':
        return MeasuredPart(dataloader, evaluator['metrics'], metric)
    if kind != 'MultiDatasetsEvaluator':
        raise ValueError(
            f'{names.evaluator}.type={kind}: it is not known which images its metrics are for; '
            f'give a list of metrics, as {names.evaluator}=[dict(type=...)]'
        )
    prefixes, parts = _parts(dataloader, evaluator, names)
    fitting = [each for each in prefixes if (metric or '').startswith(f'{each}/')]
    if not fitting:
        raise ValueError(
            f'{names.evaluator}.type=MultiDatasetsEvaluator has a metric for each of '
            f'{", ".join(prefixes)}, and P is of one of them: name it with {names.metric}, as '
            f'{prefixes[0]}/pascal_voc/mAP'
        )
    # One prefix may begin with another: 'voc/2007' with 'voc'.
    prefix = max(fitting, key=len)
    dataset, own_metric = parts[prefix]
    return MeasuredPart(
        {**dataloader, 'dataset': dataset}, [own_metric], metric.removeprefix(f'{prefix}/')
    )


def _parts(
    dataloader: Mapping, evaluator: Mapping, names: Names
) -> tuple[list[str], dict[str, tuple[Mapping, Any]]]:
    """Return the prefixes of a MultiDatasetsEvaluator, and dataset and metric of each."""
    prefixes = list(evaluator.get('dataset_prefixes') or ())
    metrics = evaluator['metrics']
    metrics = [metrics] if isinstance(metrics, Mapping | BaseMetric) else list(metrics)
    datasets = list(dataloader['dataset'].get('datasets') or ())
    if not len(prefixes) == len(metrics) == len(datasets) or not prefixes:
        raise ValueError(
            f'{names.evaluator}.dataset_prefixes={prefixes}: there are {len(metrics)} metrics and '
            f'{len(datasets)} datasets of a ConcatDataset; give one prefix and one metric for each'
        )
    if len(set(prefixes)) < len(prefixes):
        raise ValueError(
            f'{names.evaluator}.dataset_prefixes={prefixes}: two datasets have the same prefix; '
            f'give each its own, so that figures have names of their own'
        )
    return prefixes, dict(zip(prefixes, zip(datasets, metrics, strict=True), strict=True))


def build_metrics(
    evaluator: Mapping | Sequence, dataset_meta: Mapping, names: Names
) -> list[BaseMetric]:
    """Build the metrics of an evaluator that see all images.

    Args:
        evaluator (Mapping | Sequence): A metric, a list of them, or an Evaluator of some.
        dataset_meta (Mapping): The metainfo of the test set.
        names (Names): For messages.

    Returns:
        list[BaseMetric]: In the evaluator's order.

    Raises:
        ValueError: If its metrics see different images, see :func:`select_part`, or an annotation
            file is damaged.
    """
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        evaluator = select_part({'dataset': {}}, evaluator, names=names).evaluator
    try:
        built = Evaluator(evaluator)
    except json.JSONDecodeError as error:
        parts = [evaluator] if isinstance(evaluator, Mapping) else evaluator
        files = [str(part['ann_file']) for part in parts if part.get('ann_file')]
        raise ValueError(
            f'{names.evaluator}: ann_file={" or ".join(files)} is no JSON ({error}): mend it, or '
            f'give another file'
        ) from error
    built.dataset_meta = dict(dataset_meta)
    return built.metrics
