# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from functools import lru_cache

import cv2
import numpy as np

# OpenCV filters larger kernels by a slow Fourier transform.
_TILE = 11


def defocus(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Average an image over a soft disk, mirrored at the edges.

    Args:
        image (ndarray): uint8, (H, W, 3).
        radius (int): Radius of the disk in pixels.
        sigma (float): Standard deviation of the Gaussian that softens it.

    Returns:
        ndarray: float32, (H, W, 3).
    """
    kernel = _soft_disk(radius, sigma)
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = cv2.copyMakeBorder(
        image.astype(np.float32), reach, reach, reach, reach, cv2.BORDER_REFLECT_101
    )
    total = np.zeros(image.shape, dtype=np.float32)
    for top in range(0, len(kernel), _TILE):
        for left in range(0, len(kernel), _TILE):
            tile = np.ascontiguousarray(kernel[top : top + _TILE, left : left + _TILE])
            part = cv2.filter2D(padded[top:, left:], -1, tile, anchor=(0, 0))
            total += part[:height, :width]
    return total


def defocus_even(radius: int, sigma: float) -> np.ndarray:
    """Give the levels that :func:`defocus_blur` of the reference makes of even images."""
    return np.arange(256) * _soft_disk(radius, sigma).sum(dtype=np.float64)


@lru_cache(maxsize=5)
def _soft_disk(radius: int, sigma: float) -> np.ndarray:
    reach = max(radius, 8)
    steps = np.arange(-reach, reach + 1)
    disk = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    side = 3 if radius <= 8 else 5
    soft = cv2.GaussianBlur(disk, (side, side), sigma)
    # Some are below the normal numbers of float32, which take a processor a hundred times as long.
    soft[soft < 1e-12] = 0
    rows = np.flatnonzero(soft.any(axis=1))
    return soft[rows[0] : rows[-1] + 1, rows[0] : rows[-1] + 1]
