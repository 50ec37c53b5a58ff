# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The perturbation of sharpness-aware training: the formulas of the paper, in plain PyTorch."""

from .blocks import find_blocks
from .loss_ratio import LossRatioController
from .perturbation import (
    AdaptivePerturbation,
    Perturbation,
    PerturbationStats,
    UniformPerturbation,
)
from .radius import SCORES, adaptive_radii, magnitude

__all__ = [
    'SCORES',
    'AdaptivePerturbation',
    'LossRatioController',
    'Perturbation',
    'PerturbationStats',
    'UniformPerturbation',
    'adaptive_radii',
    'find_blocks',
    'magnitude',
]
