# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A small model, data and Runner settings that exercise what detectors do."""

from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

CLASSES = 4


class Block(nn.Module):
    """A residual block, so that two convolutions share their channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * channels)
        self.conv2 = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv2(F.silu(self.bn1(self.conv1(x)))))


class ToyModel(BaseModel):
    """Stem, residual block, two branches that are concatenated, flatten, linear head."""

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width))
        self.block = Block(width)
        self.left = nn.Conv2d(width, width, 1)
        self.right = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(3 * width * 4, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor'):
        x = self.block(F.relu(self.stem(inputs)))
        x = torch.cat([torch.sigmoid(self.left(x)), F.relu(self.right(x))], 1)
        x = F.adaptive_avg_pool2d(x, 2).flatten(1)
        logits = self.head(F.relu(self.fc(self.drop(x))))
        if mode == 'loss':
            return dict(loss=F.cross_entropy(logits, labels))
        return [dict(logits=row) for row in logits] if mode == 'predict' else logits


class ToyData(Dataset):
    """Random images whose class shows in their mean colour; noise on them if asked for."""

    def __init__(self, size: int = 24, noise: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(7)
        self.labels = torch.arange(size) % CLASSES
        tint = torch.eye(CLASSES)[:, :3][self.labels].reshape(size, 3, 1, 1)
        self.images = torch.randn(size, 3, 8, 8, generator=generator) * 0.5 + tint
        self.noise = noise

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict:
        image = self.images[i]
        if self.noise:
            image = image + self.noise * torch.randn(image.shape)
        return dict(inputs=image, labels=self.labels[i])


class MeanLogit(BaseMetric):
    """A score that depends on every weight."""

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results += [row['logits'].double().abs().sum().item() for row in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(score=sum(results) / len(results))


def stacked(samples: list[dict]) -> dict:
    """Collate to one batch."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def loader(batch_size: int = 4, shuffle: bool = True, noise: float = 0.0, **kwargs) -> dict:
    """Dataloader settings; 24 images, so 6 iterations an epoch at batch size 4."""
    return dict(
        batch_size=batch_size,
        dataset=ToyData(noise=noise),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=stacked,
        **{'num_workers': 0, **kwargs},
    )


def settings(work_dir: Path, hook: dict | None = None, **kwargs) -> dict:
    """A run of 6 epochs of 6 iterations: 1 warms up, 2 prune, 3 fine-tune.

    It prunes by magnitudes, which take channels of every layer.
    """
    hook = dict(
        type='AdaSAPHook',
        warmup=1,
        prune=2,
        target=dict(params=0.4),
        importance=dict(type='MagnitudeImportance'),
        interval=3,
        round_to=1,
    ) | (hook or {})
    cfg = dict(
        work_dir=str(work_dir),
        train_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=6),
        val_dataloader=loader(shuffle=False),
        val_cfg=dict(),
        val_evaluator=dict(type=MeanLogit),
        optim_wrapper=dict(
            type='AdaSAPOptimWrapper',
            optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-3),
        ),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=6, by_epoch=True),
        default_hooks=dict(
            adasap=hook,
            logger=dict(type='LoggerHook', interval=2),
            checkpoint=dict(type='CheckpointHook', interval=1),
        ),
        randomness=dict(seed=3),
        default_scope='mmengine',
        log_level='WARNING',
    )
    return cfg | kwargs
