# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Blur corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

from .filters import enlarged_sum, smear, smear_even, smooth_levels
from .numerics import Rng, round_like_reference, row_blocks, to_uint8


def defocus_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Average over a disk, whose edge is softened by a Gaussian.

    ======== === === === === ===
    severity  1   2   3   4   5
    radius    3   4   6   8  10
    sigma    0.1 0.5 0.5 0.5 0.5
    ======== === === === === ===

    Both in pixels, whatever the image's size.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not drawn from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    radius, sigma = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    return round_like_reference(defocus(image, radius, sigma), defocus_even(radius, sigma))


def glass_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Smooth, let pixels be overwritten by random neighbours, and smooth again.

    ========== === === === === ===
    severity    1   2   3   4   5
    sigma      0.7 0.9 1.0 1.1 1.5
    reach       1   2   2   3   4
    iterations  2   1   3   2   2
    ========== === === === === ===

    sigma and reach in pixels. The reference means to swap pixels, but its swap is a copy.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the neighbours come from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    settings = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    sigma, reach, iterations = settings[severity - 1]
    height, width = image.shape[:2]
    sources = shuffled_sources(height, width, reach, rng)
    for _ in range(iterations - 1):
        sources = sources.take(shuffled_sources(height, width, reach, rng))
    exact = isinstance(rng, np.random.RandomState)
    pixels = smooth_levels(image, sigma, exact).reshape(-1, 3)
    return smooth_levels(pixels.take(sources, axis=0).reshape(image.shape), sigma, exact)


def motion_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Smear the image along one direction, drawn from U(-45, 45) degrees.

    ======== == == == == ==
    severity 1  2  3  4  5
    radius   10 15 15 15 20
    sigma    3  5  8  12 15
    ======== == == == == ==

    Both in pixels, whatever the image's size. The result is the weighted sum of 2 radius + 1
    copies of the image, the i-th moved by i pixels, with weights of one half of a Gaussian.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the direction comes from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angle = rng.uniform(-45, 45)
    if isinstance(rng, np.random.RandomState):
        # The weights at the end of the line are lost in float32, but decide next to even areas.
        total = smear(image.astype(np.float64), radius, sigma, angle)
        levels = np.arange(256, dtype=np.float64)
        return round_like_reference(
            total, smear_even(levels, image.shape[:2], radius, sigma, angle)
        )
    total = smear(image.astype(np.float32), radius, sigma, angle)
    # Else rounding alone, which differs between processors, would decide whether an even area
    # keeps its level or loses one when the fraction is cut off.
    total += np.float32(2**-10)
    return to_uint8(total)


def zoom_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Average the image and enlargements of its middle.

    ======== ==== ==== ==== ==== ====
    severity  1    2    3    4    5
    below    1.11 1.16 1.21 1.26 1.31
    step     0.01 0.01 0.02 0.02 0.03
    ======== ==== ==== ==== ==== ====

    Enlarged by 1, 1 + step, and so on. The image itself has the weight of two of them.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not drawn from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    settings = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    factors = np.arange(1, *settings[severity - 1])
    pixels = image.astype(np.float32)
    total = enlarged_sum(pixels, factors[1:].tolist())
    pixels *= 2
    total += pixels
    total /= len(factors) + 1

    even = np.arange(256, dtype=np.float32) / np.float32(255)
    sums = np.zeros_like(even)
    for _ in factors:
        sums += even
    return round_like_reference(
        total, (even + sums) / np.float32(len(factors) + 1) * np.float32(255)
    )


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
    for rows in row_blocks(height, width, 2**15):
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


def shuffled_sources(height: int, width: int, reach: int, rng: Rng) -> np.ndarray:
    """Say where each pixel comes from when pixels are copied from random neighbours, one by one.

    From the last pixel of an image to the first, apart from its border, each is overwritten by one
    of the (2 reach)^2 around it. Below and to the right of it these have been overwritten before,
    so that such a copy is followed on to where it came from.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        reach (int): Largest distance in rows and columns, up and to the left; one less down and
            to the right.
        rng (RandomState | Generator): Where the neighbours come from.

    Returns:
        ndarray: intp, (height * width,), place of each pixel's value in the flat image.
    """
    inside = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    sources = np.arange(height * width).reshape(height, width)
    size = sources[inside].shape
    sources[inside] += _moves(*size, width, reach, rng)
    sources = sources.ravel()

    copied_from = sources.copy()
    open_ends = np.flatnonzero(sources > np.arange(sources.size))
    while open_ends.size:
        ends = sources[open_ends]
        further = copied_from[ends]
        sources[open_ends] = further
        open_ends = open_ends[further > ends]
    return sources


def _moves(rows: int, columns: int, stride: int, reach: int, rng: Rng) -> np.ndarray:
    """Draw the neighbours, as distances in an image whose rows are stride pixels long."""
    if isinstance(rng, np.random.RandomState):
        # The reference draws dx, dy, and from the last pixel on.
        draws = rng.randint(-reach, reach, (rows, columns, 2), dtype=np.int32)[::-1, ::-1]
        return draws[..., 1] * stride + draws[..., 0]
    one_way = np.arange(-reach, reach)
    moves = (one_way[:, None] * stride + one_way).ravel()
    return moves.take(rng.integers(0, moves.size, (rows, columns), dtype=np.uint8))
