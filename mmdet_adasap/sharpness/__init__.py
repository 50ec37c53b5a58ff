# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .perturbation import (
    AdaptivePerturbation,
    Perturbation,
    PerturbationStats,
    UniformPerturbation,
)
from .radius import adaptive_radii
from .scores import SCORES, magnitude

__all__ = [
    'SCORES',
    'AdaptivePerturbation',
    'Perturbation',
    'PerturbationStats',
    'UniformPerturbation',
    'adaptive_radii',
    'magnitude',
]
