# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Step = dict | Callable
SHAPING = ('Resize', 'ResizeEdge', 'CenterCrop', 'EfficientNetCenterCrop')
"""Steps of test pipelines that give an image its size."""


def type_name(step: Step) -> str:
    """Name of a step of a pipeline, without scope, as it is or as a config says it."""
    kind = step.get('type') if isinstance(step, Mapping) else type(step)
    # As 'mmdet.Resize' and mmpretrain's 'torchvision/Resize' say where it is from.
    return kind.__name__ if inspect.isclass(kind) else re.split(r'[./]', str(kind))[-1]


def split_behind_loading(key: str, pipeline: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Cut a pipeline behind the step that loads the image.

    Args:
        key (str): Its key in the config, for the message.
        pipeline (Sequence): Steps, or what a config says of them.

    Raises:
        ValueError: If there is no such step.
    """
    names = [type_name(step) for step in pipeline or ()]
    for position, name in enumerate(names, start=1):
        if name.startswith('LoadImage'):
            return [*pipeline[:position]], [*pipeline[position:]]
    raise ValueError(
        f'{key}={names} has no step that loads the image, behind which to corrupt it: begin it '
        "with dict(type='LoadImageFromFile')"
    )


def split_behind_cropping(key: str, pipeline: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Cut a classifier's test pipeline where the image has the size that the model sees.

    There ImageNet-C was corrupted (arXiv:1903.12261). Steps that load, resize or crop are in
    front; CIFAR's datasets have none.

    Args:
        key (str): Its key in the config, for the message.
        pipeline (Sequence): Steps, or what a config says of them.

    Raises:
        ValueError: If such a step comes behind another.
    """
    names = [type_name(step) for step in pipeline or ()]
    known = [name.startswith('LoadImage') or name in SHAPING for name in names]
    front = known.index(False) if False in known else len(names)
    late = [name for name in names[front:] if re.search('Crop|Resize|Random|Album', name)]
    if late:
        raise ValueError(
            f'{key}={names} has {late[0]} behind {names[front - 1] if front else "nothing"}; '
            f'images are corrupted at the size that the model sees, so begin with '
            f'LoadImageFromFile and steps among {", ".join(SHAPING)}, without others between, and '
            f'leave out chance'
        )
    return [*pipeline[:front]], [*pipeline[front:]]


def without_pipeline(dataset: Mapping) -> tuple[dict, list[dict]]:
    """Take the pipeline out of a dataset's config, also where another dataset is around it.

    Returns:
        tuple[dict, list[dict]]: The config whose dataset gives what is known of an image and
        loads nothing, and the pipeline.

    Raises:
        ValueError: If its parts have different pipelines.
    """
    dataset = copy.deepcopy(dict(dataset))
    found = _take_out(dataset)
    if any(pipeline != found[0] for pipeline in found):
        raise ValueError(
            f'the dataset has {len(found)} parts with different pipelines; give them the same one'
        )
    return dataset, found[0] if found else []


def _take_out(dataset: dict) -> list[Any]:
    found = [dataset.pop('pipeline')] if dataset.get('pipeline') else []
    for key in ('dataset', 'datasets'):
        inner = dataset.get(key) or []
        for part in [inner] if isinstance(inner, Mapping) else inner:
            found += _take_out(part)
    return found
