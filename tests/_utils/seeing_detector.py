# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A detector that needs no training: it is told the objects, and misses by what it sees."""

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn


@MODELS.register_module(force=True)
class SeeingDetector(BaseModel):
    """Boxes are off by ``blur`` pixels or so; how exactly depends on every pixel and weight."""

    def __init__(self, blur: float = 3.0, fail: bool = False) -> None:
        super().__init__(DetDataPreprocessor())
        self.blur = nn.Parameter(torch.tensor(blur))
        self.conv = nn.Conv2d(3, 1, 1)
        self.fail = fail
        self.seen: list = []

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        if mode == 'tensor':
            return self.conv(inputs)
        if mode == 'loss':
            return dict(loss=(self.conv(inputs / 255) - self.blur).square().mean())
        if self.fail:
            raise ValueError('no such thing')
        for image, sample in zip(inputs, data_samples, strict=True):
            self.seen.append(sample.img_id)
            assert 'pred_instances' not in sample, 'another model has been here'
            truth = sample.gt_instances
            generator = torch.Generator().manual_seed(int(image.sum().item()))
            twice = torch.cat([truth.bboxes, truth.bboxes])
            off = self.blur * torch.randn(twice.shape, generator=generator)
            sample.pred_instances = InstanceData(
                bboxes=twice + off,
                labels=torch.cat([truth.labels, truth.labels]),
                scores=torch.rand(len(twice), generator=generator),
            )
        return data_samples
