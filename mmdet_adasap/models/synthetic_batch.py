# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Batches of noise for models that are run without data: annotated, or by a test pipeline."""

import copy

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from ..integration import is_detector, is_mmpretrain_config, type_name

DEFAULT_SIZE = (640, 640)
"""Width and height of the image where the test pipeline names none; an own choice."""
CIFAR_SIZE = 32
"""Side of the image where the pipeline of a classifier does not resize: that of CIFAR."""
DETECTOR_SIZES = (256, 320, 512, 800)
"""Sides of square images in pixels, the cheapest first; a detector gets the first it runs on."""
CLASSIFIER_SIZES = (64, 224, 32, 256, 384)
"""The same for all other models, most of which take small images or just those of ImageNet."""


def candidate_sizes(model: nn.Module) -> tuple[int, ...]:
    """Return the sides of images, in pixels, that a model of mmengine is tried with in turn."""
    return DETECTOR_SIZES if is_detector(model) else CLASSIFIER_SIZES


def synthetic_batch(model: nn.Module, size: int | tuple[int, int], images: int = 1) -> dict:
    """Return a batch of noise as ``model.test_step`` and ``model.train_step`` take it.

    Args:
        model (nn.Module): A model of mmdet (the samples have boxes then, and masks if some
            layer is named after them) or mmpretrain.
        size (int | tuple[int, int]): Side of square images in pixels, or height and width.
        images (int): Number of images. Defaults to 1.

    Returns:
        dict: ``inputs``, float images of shape ``[3, height, width]`` (one channel if the model
        normalises just one), and ``data_samples``.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    generator = torch.Generator().manual_seed(0)
    mean = getattr(model.data_preprocessor, 'mean', None)
    shape = (1 if isinstance(mean, torch.Tensor) and mean.numel() == 1 else 3, *size)
    # In [0, 128): dark images, as decoded from a file and not yet normalised.
    inputs = [128 * torch.rand(shape, generator=generator) for _ in range(images)]
    if is_detector(model):
        masks = any('mask' in name for name, _ in model.named_modules())
        samples = [_detection_sample(size, masks) for _ in range(images)]
        return dict(inputs=inputs, data_samples=samples)
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(0) for _ in range(images)]
    return dict(inputs=torch.stack(inputs), data_samples=samples)


def _detection_sample(shape: tuple[int, int], with_masks: bool) -> object:
    """Return a sample with two boxes, of which one reaches over most of the image."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    height, width = shape
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
        )
    )
    part = torch.tensor([[0.1, 0.2, 0.4, 0.6], [0.0, 0.0, 0.8, 0.8]])  # left, top, right, bottom
    boxes = part * torch.tensor([width, height, width, height])
    boxes[1, :2] = 8.0
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 0]))
    if with_masks:
        masks = np.zeros((2, *shape), dtype=np.uint8)
        masks[:, height // 4 : height // 2, width // 4 : width // 2] = 1
        sample.gt_instances.masks = BitmapMasks(masks, *shape)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *shape, dtype=torch.long))
    return sample


def noise_batch(config: Config) -> dict:
    """Return an image of noise that has been through a config's test pipeline.

    Args:
        config (Config): The config of a detector or classifier.

    Returns:
        dict: ``inputs`` and ``data_samples``, for ``model.test_step``.

    Raises:
        ValueError: If the config has no test pipeline.
    """
    if 'test_dataloader' not in config:
        raise ValueError(
            f'{config.filename}: test_dataloader is missing, which says how images are prepared; '
            f'export with the config that test.py takes'
        )
    if is_mmpretrain_config(config):
        return _classifier_batch(config)
    from mmcv.transforms import Compose
    from mmdet.utils import get_test_pipeline_cfg

    pipeline = copy.deepcopy(get_test_pipeline_cfg(config))
    width, height = _image_size(pipeline)
    pipeline[0].type = 'mmdet.LoadImageFromNDArray'
    data = Compose(pipeline)(dict(img=_noise(height, width), img_id=0))
    return dict(inputs=[data['inputs']], data_samples=[data['data_samples']])


def _classifier_batch(config: Config) -> dict:
    """Return the same for a classifier."""
    from mmcv.transforms import Compose

    pipeline = config.test_dataloader.dataset.pipeline
    others = [t for t in pipeline if type_name(t) != 'LoadImageFromFile']
    resized = any('scale' in t or 'crop_size' in t for t in others)
    side = DEFAULT_SIZE[0] if resized else CIFAR_SIZE
    data = Compose(others)(dict(img=_noise(side, side), img_shape=(side, side)))
    return dict(inputs=torch.stack([data['inputs']]), data_samples=[data['data_samples']])


def _noise(height: int, width: int) -> np.ndarray:
    """Return an image of noise, uint8 of shape ``[height, width, 3]``."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _image_size(pipeline: list[dict]) -> tuple[int, int]:
    """Return the width and height that a test pipeline resizes to."""
    for transform in pipeline:
        scale = transform.get('scale')
        if isinstance(scale, list | tuple) and len(scale) == 2:
            return tuple(scale)
    return DEFAULT_SIZE
