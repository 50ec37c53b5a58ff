# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Noise corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import numpy as np

from .draws import Rng, standard_normal
from .levels import to_levels


def gaussian_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Add independent normal noise to every pixel and channel: x + N(0, sigma^2).

    ======== ==== ==== ==== ==== ====
    severity  1    2    3    4    5
    sigma    0.08 0.12 0.18 0.26 0.38
    ======== ==== ==== ==== ==== ====

    sigma is in units of the full range (255 levels).

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the noise comes from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noisy = standard_normal(rng, image.shape)
    noisy *= 255 * sigma
    noisy += image
    return to_levels(noisy)
