# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The perturbations that a config can name."""

from ..registry import PERTURBATIONS
from ..sharpness import AdaptivePerturbation, UniformPerturbation

PERTURBATIONS.register_module(module=AdaptivePerturbation)
PERTURBATIONS.register_module(module=UniformPerturbation)
