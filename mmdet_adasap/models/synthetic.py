# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Images of noise, for looking at a model where there are no data."""

import numpy as np
import torch
from torch import nn

from .kinds import is_detector

SIZES = (256, 320, 512, 800)
"""Sides of the images in pixels; the first that a detector runs on is used."""
CLASSIFIER_SIZES = (64, 224, 32, 256, 384)
"""The same for all other models, most of which take small images or just those of ImageNet."""


def sizes_of(model: nn.Module) -> tuple[int, ...]:
    """Sides of images that a model of mmengine is tried with, in pixels, in this order."""
    return SIZES if is_detector(model) else CLASSIFIER_SIZES


def synthetic_batch(model: nn.Module, size: int, images: int = 1) -> dict:
    """A batch as ``model.test_step`` and ``model.train_step`` take it, without meaning.

    Args:
        model (nn.Module): A model of mmdet (the samples have boxes then, and masks if some
            layer is named after them) or mmpretrain.
        size (int): Side of the images in pixels.
        images (int): Number of images. Defaults to 1.

    Returns:
        dict: ``inputs``, float images of shape ``[3, size, size]`` (one channel if the model
        normalises just one), and ``data_samples``.
    """
    generator = torch.Generator().manual_seed(0)
    mean = getattr(model.data_preprocessor, 'mean', None)
    shape = (1 if isinstance(mean, torch.Tensor) and mean.numel() == 1 else 3, size, size)
    inputs = [128 * torch.rand(shape, generator=generator) for _ in range(images)]
    if is_detector(model):
        masks = any('mask' in name for name, _ in model.named_modules())
        samples = [_detection(size, masks) for _ in range(images)]
        return dict(inputs=inputs, data_samples=samples)
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(0) for _ in range(images)]
    return dict(inputs=torch.stack(inputs), data_samples=samples)


def _detection(size: int, with_masks: bool) -> object:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    shape = (size, size)
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
    far = size * 0.8
    boxes = torch.tensor([[size * 0.1, size * 0.2, size * 0.4, size * 0.6], [8.0, 8.0, far, far]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 0]))
    if with_masks:
        masks = np.zeros((2, size, size), dtype=np.uint8)
        masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, size, size, dtype=torch.long))
    return sample
