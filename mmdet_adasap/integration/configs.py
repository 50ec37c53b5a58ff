# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Configs of OpenMMLab: read, asked, built without weights, and their test pipelines cut."""

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..distributions import package_folder
from ..errors import one_line

PRETRAINED = ('init_cfg', 'pretrained')
"""Keys of a model's config that name weights to be downloaded, of today and of mmdet 2."""
SHAPING = ('Resize', 'ResizeEdge', 'CenterCrop', 'EfficientNetCenterCrop')
"""Steps of test pipelines that give an image its size, and leave nothing to chance."""

Step = dict | Callable
"""A step of a pipeline, as a config says it or built."""


def read_config(config: str | Path | Config) -> Config:
    """Read a config by its file or by its name in an installed package (``mmdet::...``).

    Args:
        config (str | Path | Config): A config that was read is given back as it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If there is none of that name, or it cannot be read.
    """
    if isinstance(config, Config):
        return config
    config = str(config)
    try:
        return _of_package(config) if '::' in config else Config.fromfile(config)
    except FileNotFoundError:
        raise
    except Exception as error:  # a config is a program and may raise anything
        example = 'a file, or PACKAGE::FOLDER/FILE.py as in mmdet::ssd/ssd300_coco.py'
        raise ValueError(
            f'{config} is not a config that can be read: give {example} ({one_line(error)})'
        ) from error


def _of_package(name: str) -> Config:
    """Read a config of an installed package."""
    # Not at the top of this file: mmengine.hub imports mmengine.runner, at whose end our hooks are
    # registered, which import this file while mmengine.hub is half imported.
    from mmengine.hub import get_config

    package, _, path = name.partition('::')
    folder = package_folder(package)
    file = folder and folder / '.mim' / 'configs' / path
    # mmengine refuses names with a plus, as of mmdet's folder gn+ws.
    config = Config.fromfile(file) if file and file.is_file() else get_config(name)
    # Many of mmpretrain leave out their scope, without which their types are not found.
    config.setdefault('default_scope', package)
    return config


def build_dense(config: str | Path | Config) -> nn.Module:
    """Build the model of a config with random weights; no file of weights is looked for.

    Args:
        config (str | Path | Config): A config file, a name as ``mmdet::ssd/ssd300_coco.py``, or
            a config. It is a Python program.

    Returns:
        nn.Module: The model, on the CPU.

    Raises:
        ValueError: If the config has no model.
    """
    config = read_config(config)
    if not isinstance(config.get('model'), dict):
        raise ValueError(f'{config.filename}: model is missing or not a dict')
    enter_scope(config)
    model = config.model.to_dict()
    # As mmengine's Runner does. Configs of mmpretrain have it beside the model, of mmdet inside.
    if config.get('data_preprocessor'):
        model.setdefault('data_preprocessor', config.data_preprocessor.to_dict())
    return MODELS.build(ConfigDict(_without_weights(model)))


def enter_scope(config: Config) -> None:
    """Let names in a config be looked for in the library that it is for, as a Runner does.

    A Runner takes ``default_scope=None`` of a config in pure Python as it is: then names, which
    stand in the library's own code, are looked for in that library.
    """
    init_default_scope(library_of(config) or 'mmengine')


def library_of(config: Config) -> str | None:
    """Return the library that a config is for: its scope, or where the class of its model is from.

    Configs in pure Python have classes in place of names, and those of mmdet have no scope.
    """
    kind = (config.get('model') or {}).get('type')
    name = kind.__module__ if inspect.isclass(kind) else str(kind)
    found = name.partition('.')[0]
    return config.get('default_scope') or (found if found in ('mmdet', 'mmpretrain') else None)


def _without_weights(value: object) -> object:
    """Copy a config, at any depth without the keys of :data:`PRETRAINED`."""
    if isinstance(value, dict):
        return {k: _without_weights(v) for k, v in value.items() if k not in PRETRAINED}
    if isinstance(value, list | tuple):
        return type(value)(_without_weights(v) for v in value)
    return value


def is_mmpretrain_config(config: Config) -> bool:
    """Return whether what a config names is looked for in mmpretrain first."""
    return library_of(config) == 'mmpretrain'


def find_hooks(config: Config, name: str) -> list[Mapping]:
    """Return the configs of all hooks of a class, which is named without a scope."""
    hooks = [*config.get('default_hooks', {}).values(), *config.get('custom_hooks', ())]
    return [hook for hook in hooks if isinstance(hook, Mapping) and type_name(hook) == name]


def image_side(config: Config) -> int | None:
    """Return the side in pixels of the square image that a classifier is for.

    The test pipeline says it where it makes one, else the backbone's ``img_size`` may.

    Returns:
        int | None: The side; None for a detector, and where neither of the two says it.
    """
    if not is_mmpretrain_config(config):
        return None
    dataset = config.get('test_dataloader', {}).get('dataset', {})
    steps = dataset.get('pipeline') or ()
    # ResizeEdge leaves another edge as long as it will.
    shaping = [step for step in steps if type_name(step) != 'ResizeEdge']
    sizes = [step.get('crop_size', step.get('scale')) for step in shaping]
    sizes.insert(0, config.get('model', {}).get('backbone', {}).get('img_size'))
    size = next((size for size in reversed(sizes) if size is not None), None)
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    return size if isinstance(size, int) else None


def type_name(step: Step) -> str:
    """Return the class name of a step of a pipeline, or of another config, without its scope."""
    kind = step.get('type') if isinstance(step, Mapping) else type(step)
    # As 'mmdet.Resize' and mmpretrain's 'torchvision/Resize' say where it is from.
    return kind.__name__ if inspect.isclass(kind) else re.split(r'[./]', str(kind))[-1]


def split_after_loading(key: str, pipeline: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Split a pipeline after the step that loads the image.

    Args:
        key (str): Its key in the config, for the message.
        pipeline (Sequence[Step]): Its steps.

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


def split_after_cropping(key: str, pipeline: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    """Split a classifier's test pipeline where the image has the size that the model sees.

    There ImageNet-C was corrupted (arXiv:1903.12261). Steps that load, resize or crop are in
    front; CIFAR's datasets have none.

    Args:
        key (str): Its key in the config, for the message.
        pipeline (Sequence[Step]): Its steps.

    Raises:
        ValueError: If such a step comes behind another.
    """
    names = [type_name(step) for step in pipeline or ()]
    known = [name.startswith('LoadImage') or name in SHAPING for name in names]
    front = known.index(False) if False in known else len(names)
    # Names of mmpretrain's and torchvision's steps that change the size or draw random numbers.
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
    """Take the pipeline out of a dataset's config, also from inside RepeatDataset and its like.

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
    """Take the pipelines out of a dataset's config, in place, and return them."""
    found = [dataset.pop('pipeline')] if dataset.get('pipeline') else []
    for key in ('dataset', 'datasets'):
        inner = dataset.get(key) or []
        for part in [inner] if isinstance(inner, Mapping) else inner:
            found += _take_out(part)
    return found
