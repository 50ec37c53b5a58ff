# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Blur corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import numpy as np

from .defocusing import defocus, defocus_even
from .draws import Rng
from .gaussian import smooth_levels
from .levels import settle, to_levels
from .shuffling import shuffled_sources
from .smearing import smear, smear_even
from .stretching import enlarged_sum


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
    return settle(defocus(image, radius, sigma), defocus_even(radius, sigma))


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
        return settle(total, smear_even(levels, image.shape[:2], radius, sigma, angle))
    total = smear(image.astype(np.float32), radius, sigma, angle)
    # Else rounding alone, which differs between processors, would decide whether an even area
    # keeps its level or loses one when the fraction is cut off.
    total += np.float32(2**-10)
    return to_levels(total)


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
    return settle(total, (even + sums) / np.float32(len(factors) + 1) * np.float32(255))
