# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..checkpoints import first_line
from ..datasets.pipelines import type_name

PRETRAINED = ('init_cfg', 'pretrained')


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
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = config.model.to_dict()
    if config.get('data_preprocessor'):  # as mmengine's Runner does
        model.setdefault('data_preprocessor', config.data_preprocessor.to_dict())
    return MODELS.build(ConfigDict(_without_weights(model)))


def read_config(config: str | Path | Config) -> Config:
    """Read a config by its file or by its name in an installed package (``mmdet::...``).

    One that was read is given back as it is.

    Raises:
        ValueError: If there is none of that name, or it cannot be read.
    """
    if isinstance(config, Config):
        return config
    config = str(config)
    try:
        return _of_package(config) if '::' in config else Config.fromfile(config)
    except FileNotFoundError:
        raise
    except Exception as error:
        example = 'a file, or PACKAGE::FOLDER/FILE.py as in mmdet::ssd/ssd300_coco.py'
        raise ValueError(
            f'{config} is not a config that can be read: give {example} ({first_line(error)})'
        ) from error


def _of_package(name: str) -> Config:
    """A config of an installed package; some of mmpretrain leave their scope to their users."""
    config = get_config(name)
    config.setdefault('default_scope', name.partition('::')[0])
    return config


def of_mmpretrain(config: Config) -> bool:
    """Whether what a config names is looked for in mmpretrain first."""
    return config.get('default_scope') == 'mmpretrain'


def hooks_of(config: Config, name: str) -> list[Mapping]:
    """What a config says of the hooks of a class, by its name without a scope."""
    hooks = [*config.get('default_hooks', {}).values(), *config.get('custom_hooks', ())]
    return [hook for hook in hooks if isinstance(hook, Mapping) and type_name(hook) == name]


def image_side(config: Config) -> int | None:
    """Side in pixels of the square image that a classifier is for, if its config says that.

    The test pipeline does where it makes one, else the backbone's ``img_size`` may.
    """
    if not of_mmpretrain(config):
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


def _without_weights(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_weights(v) for k, v in value.items() if k not in PRETRAINED}
    if isinstance(value, list | tuple):
        return type(value)(_without_weights(v) for v in value)
    return value
