# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Average over a soft disk.

The softened disk of the reference is a kernel of up to 441 weights. A filter with it takes ten to
twenty times as long as what is done here: sums over rectangles that make up the hard disk, from
an integral image, and then the Gaussian that softens it. As the reference softens the disk in a
frame which the largest touch, both differ there by a few weights, which are filtered apart.
"""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

from .strips import strips


def defocus(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Average an image over a soft disk, mirrored at the edges.

    Args:
        image (ndarray): uint8, (H, W, 3).
        radius (int): Radius of the disk in pixels.
        sigma (float): Standard deviation of the Gaussian that softens it, in pixels.

    Returns:
        ndarray: float32, (H, W, 3).
    """
    height, width = image.shape[:2]
    reach = radius + 2
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    average = np.empty(image.shape, dtype=np.float32)
    # Twice as high as elsewhere, since the rows around a strip are computed with it.
    for rows in strips(height, width, 2**15):
        around = padded[rows.start : rows.stop + 2 * reach]
        average[rows] = _defocus_inside(around, radius, sigma)
    return average


def _defocus_inside(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Average where radius + 2 pixels are there on each side."""
    side = _soft_side(radius)
    soft = cv2.GaussianBlur(_disk_sums(image, radius), (side, side), sigma)[2:-2, 2:-2]
    corrections = _corrections(radius, sigma)
    # The smallest corrections are left out, but the sum of all weights is right.
    rest = _soft_disk(radius, sigma).sum() - 4 * sum(weights.sum() for _, weights in corrections)
    soft = soft * np.float32(rest / _disk(radius, radius).sum())
    if corrections:
        image = image.astype(np.float32)
    middle = slice(radius + 2, -radius - 2)
    for distance, weights in corrections:
        before = slice(radius + 2 - distance, -radius - 2 - distance)
        behind = slice(radius + 2 + distance, distance - radius - 2 or None)
        soft += cv2.filter2D(image[before] + image[behind], -1, weights[None])[:, middle]
        columns = image[:, before] + image[:, behind]
        soft += cv2.filter2D(columns, -1, weights[:, None])[middle]
    return soft


def defocus_even(radius: int, sigma: float) -> np.ndarray:
    """Say what the reference makes of even images.

    Args:
        radius (int): As for :func:`defocus`.
        sigma (float): As for :func:`defocus`.

    Returns:
        ndarray: float64, (256,), the average for each level.
    """
    return np.arange(256) * _soft_disk(radius, sigma).sum(dtype=np.float64)


def _disk(radius: int, reach: int) -> np.ndarray:
    steps = np.arange(-reach, reach + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)


def _soft_side(radius: int) -> int:
    return 3 if radius <= 8 else 5


@lru_cache(maxsize=5)
def _soft_disk(radius: int, sigma: float) -> np.ndarray:
    """The kernel of the reference, in float32 as there."""
    disk = _disk(radius, max(radius, 8))
    disk /= disk.sum()
    return cv2.GaussianBlur(disk, (_soft_side(radius),) * 2, sigma)


def _disk_sums(image: np.ndarray, radius: int) -> np.ndarray:
    """Sum over a hard disk, where it lies inside the image, as float32, which holds such sums.

    The disk is a stack of rectangles: the widest and lowest, and of each narrower and higher one
    what stands out above and below.
    """
    height, width = (side - 2 * radius for side in image.shape[:2])
    integral = cv2.integral(image)
    widths = _disk(radius, radius)[radius:].sum(axis=1).astype(int) // 2
    total, inner = 0, 0
    for half_width in np.unique(widths)[::-1]:
        half_height = np.flatnonzero(widths == half_width)[-1]
        bottom, top = radius + half_height + 1, radius - half_height
        band = integral[bottom : bottom + height] - integral[top : top + height]
        ring = band - inner
        right, left = radius + half_width + 1, radius - half_width
        total += ring[:, right : right + width] - ring[:, left : left + width]
        inner = band
    return total.astype(np.float32)


@lru_cache(maxsize=5)
def _corrections(radius: int, sigma: float) -> tuple[tuple[int, np.ndarray], ...]:
    """Find weights of the reference's kernel that a softened disk lacks or has too much.

    Returns:
        tuple[tuple[int, ndarray], ...]: Distance of a row from the middle, and its weights. The
        columns have the same.
    """
    kernel = _soft_disk(radius, sigma)
    reach = len(kernel) // 2 + 2
    disk = _disk(radius, reach)
    difference = np.pad(kernel, 2) - cv2.GaussianBlur(
        disk / disk.sum(), (_soft_side(radius),) * 2, sigma
    )

    def beside() -> Iterator[tuple[int, np.ndarray]]:
        for distance in range(radius, reach + 1):
            weights = difference[reach + distance]
            wide = np.flatnonzero(np.abs(weights) > 1e-5 * kernel.max())
            if wide.size:
                yield distance, weights[wide[0] : wide[-1] + 1]

    return tuple(beside())
