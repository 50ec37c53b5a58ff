# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Build pruned models for the inferencers of mmdet and mmpretrain."""

import warnings
from pathlib import Path

from mmengine.config import Config
from torch import nn

from ..checkpoint import load_checkpoint_dict, meta_of, read_checkpoint
from ..integration import build_dense, read_config


def init_pruned_detector(
    config: str | Path | Config,
    checkpoint: str | Path,
    palette: str = 'none',
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build a detector from a pruned checkpoint, as ``mmdet.apis.init_detector`` does.

    Args:
        config (str | Path | Config): The unpruned config.
        checkpoint (str | Path): The pruned checkpoint; a dense one is loaded as it is.
        palette (str): Colours of the boxes, as for init_detector. Defaults to 'none': those of
            the config's dataset, else of the checkpoint.
        device (str): Where the model is put. Defaults to 'cpu'.
        cfg_options (dict, optional): Settings of the config to override.

    Returns:
        nn.Module: The detector in eval mode, for ``mmdet.apis.inference_detector``.

    Raises:
        StructureError: If the checkpoint does not fit the config.
        FileNotFoundError: If there is no such file.
        ValueError: If the checkpoint is damaged or holds more than data.

    Examples:
        >>> model = init_pruned_detector('config.py', 'epoch_24.pth')
        >>> result = inference_detector(model, 'image.jpg')
    """
    from mmdet.apis import init_detector

    found = read_checkpoint(str(checkpoint))
    with warnings.catch_warnings():
        # init_detector warns without a checkpoint; it is loaded below, after the cut.
        warnings.filterwarnings('ignore', message='checkpoint is None|palette does not exist')
        model = init_detector(config, None, palette, 'cpu', cfg_options)
    chosen = model.dataset_meta.get('palette', 'random')
    load_checkpoint_dict(model, found, str(checkpoint))
    if not meta_of(found).get('dataset_meta'):
        warnings.warn(
            f'{checkpoint} does not name its classes, so they are taken for those of COCO; set '
            f"model.dataset_meta = {{'classes': (...)}}",
            stacklevel=2,
        )
    if chosen != 'random' or palette == 'random' or 'palette' not in model.dataset_meta:
        model.dataset_meta['palette'] = chosen
    return model.to(device).eval()


def init_pruned_classifier(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build a classifier from a pruned checkpoint, as ``mmpretrain.get_model`` does.

    Args:
        config (str | Path | Config): The unpruned config.
        checkpoint (str | Path): The pruned checkpoint; a dense one is loaded as it is.
        device (str): Where the model is put. Defaults to 'cpu'.
        cfg_options (dict, optional): Settings of the config to override.

    Returns:
        nn.Module: The classifier in eval mode, for mmpretrain's ``ImageClassificationInferencer``.

    Raises:
        StructureError: If the checkpoint does not fit the config.
        FileNotFoundError: If there is no such file.
        ValueError: If the checkpoint is damaged or holds more than data.

    Examples:
        >>> model = init_pruned_classifier('config.py', 'epoch_30.pth')
        >>> result = ImageClassificationInferencer(model)('image.jpg')
    """
    config = read_config(config)
    if cfg_options:
        config.merge_from_dict(cfg_options)
    model = build_dense(config)
    load_checkpoint_dict(model, read_checkpoint(str(checkpoint)), str(checkpoint))
    # Attributes that mmpretrain's get_model sets and its inferencers read (1.2).
    model._config, model._metainfo = config, None
    model._dataset_meta = getattr(model, 'dataset_meta', {})
    return model.to(device).eval()
