# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Digital corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from .draws import Rng
from .levels import to_levels


def contrast(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Pull every channel towards its mean: (x - mean) c + mean.

    ======== === === === === ====
    severity  1   2   3   4   5
    c        0.4 0.3 0.2 0.1 0.05
    ======== === === === === ====

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not drawn from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    # The sum of integers is exact, so the mean is the same on every machine.
    means = image.sum(axis=(0, 1), dtype=np.int64) / (image.shape[0] * image.shape[1])
    levels = np.arange(256, dtype=np.float64)[:, None]
    table = to_levels((levels - means) * factor + means)
    return cv2.LUT(image, table[None])


def jpeg_compression(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Store as JPEG and read back.

    ======== == == == == ==
    severity 1  2  3  4  5
    quality  25 18 15 10 7
    ======== == == == == ==

    Quality as libjpeg counts it. Pixels depend on the libjpeg that Pillow is built with.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not drawn from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    quality = (25, 18, 15, 10, 7)[severity - 1]
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=quality)
    return np.array(Image.open(buffer))
