# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A classifier that needs no training and sees less the more an image is blurred or covered."""

import torch
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

SIDES = ('left', 'right', 'top', 'bottom')


@MODELS.register_module()
class SeeingClassifier(BaseModel):
    """Says on which side of an image it is brightest, by a comparison that noise may decide.

    Args:
        noise (float): How uncertain it is, in the units of what it sees.
        num_classes (int): Scores; those of classes other than the four sides are low.
    """

    def __init__(
        self, noise: float = 0.0, num_classes: int = 4, data_preprocessor: dict | None = None
    ) -> None:
        super().__init__(data_preprocessor or dict(type='mmpretrain.ClsDataPreprocessor'))
        self.noise = nn.Parameter(torch.tensor(noise))
        self.num_classes = num_classes

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'
    ) -> object:
        grey = inputs.float().mean(1)
        half = grey.shape[-1] // 2
        sides = [grey[..., :half], grey[..., half:], grey[:, :half], grey[:, half:]]
        means = torch.stack([side.mean((1, 2)) for side in sides], 1)
        # The same for an image whatever the batch.
        wave = torch.sin(1000 * means)
        scores = torch.full((len(inputs), self.num_classes), -1e4)
        scores[:, :4] = means + self.noise * wave
        if mode == 'tensor':
            return scores
        samples = data_samples or [DataSample() for _ in inputs]
        for sample, row in zip(samples, scores.softmax(1), strict=True):
            sample.set_pred_score(row).set_pred_label(row.argmax().reshape(1))
        return samples
