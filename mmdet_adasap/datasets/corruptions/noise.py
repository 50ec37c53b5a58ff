# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Noise corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import numpy as np

from .draws import Rng, standard_normal
from .levels import to_levels
from .poisson import capped_poisson
from .strips import strips


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
    noisy = np.empty_like(image)
    for rows in strips(*image.shape[:2]):
        noise = standard_normal(rng, image[rows].shape)
        noise *= 255 * sigma
        noise += image[rows]
        noisy[rows] = to_levels(noise)
    return noisy


def shot_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Count photons: every pixel and channel becomes Poisson(x c) / c.

    ======== == == == = =
    severity 1  2  3  4 5
    c        60 25 12 5 3
    ======== == == == = =

    c is how many photons the full range stands for; more than that are white, too.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the counts come from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    photons = (60, 25, 12, 5, 3)[severity - 1]
    counts = capped_poisson(image, photons, rng)
    levels = (np.arange(photons + 1) / photons * 255).astype(np.uint8)
    return levels.take(counts)


def impulse_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Replace pixels, each channel by itself, by black or white with equal chance.

    ======== ==== ==== ==== ==== ====
    severity  1    2    3    4    5
    share    0.03 0.06 0.09 0.17 0.27
    ======== ==== ==== ==== ==== ====

    The reference leaves this to scikit-image's ``random_noise`` with a generator that nobody can
    seed. Exact mode draws as ``random_noise`` draws from the generator it is given.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the choice comes from. A Generator chooses with 16
            bits, which rounds the share to a multiple of 2^-15.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    if isinstance(rng, np.random.RandomState):
        hit = rng.random_sample(image.shape) <= share
        white = rng.random_sample(image.shape) <= 0.5
    else:
        # The lowest bit says which of the two, the whole number whether at all.
        draws = rng.integers(0, 2**16, image.shape, dtype=np.uint16)
        hit = draws < 2 * round(share * 2**15)
        white = draws & 1
    return np.where(hit, white.astype(np.uint8) * np.uint8(255), image)
