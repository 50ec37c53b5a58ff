# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Noise corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import math
from functools import lru_cache

import numpy as np

from .numerics import Rng, row_blocks, standard_normal, to_uint8


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
        rng (RandomState | Generator): Source of the noise.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noisy = np.empty_like(image)
    for rows in row_blocks(*image.shape[:2]):
        noise = standard_normal(rng, image[rows].shape)
        noise *= 255 * sigma
        noise += image[rows]
        noisy[rows] = to_uint8(noise)
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
        rng (RandomState | Generator): Source of the counts.

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
        rng (RandomState | Generator): Source of the choice. A Generator chooses with 16
            bits, which rounds the share to a multiple of 2^-15.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    if isinstance(rng, np.random.RandomState):
        hit = rng.random_sample(image.shape) <= share
        white = rng.random_sample(image.shape) <= 0.5
    else:
        # One number for both: the lowest bit chooses black or white, the rest whether to replace.
        numbers = rng.integers(0, 2**16, image.shape, dtype=np.uint16)
        hit = numbers < 2 * round(share * 2**15)
        white = numbers & 1
    return np.where(hit, white.astype(np.uint8) * np.uint8(255), image)


# 2^11 cells of probability for each grey level, so that the table of one severity is 512 KiB. In
# most cells every number gives one count. More cells would leave fewer undecided, and the table
# would no longer fit into a cache.
_BITS = 11


# The highest bit of a uint8 marks a cell in which the count is not decided yet. The other seven
# hold the count: 60 at most, the photons of severity 1.
_UNDECIDED = 128


def capped_poisson(image: np.ndarray, photons: int, rng: Rng) -> np.ndarray:
    """Sample min(Poisson(x photons), photons) for every grey level x, in units of 255.

    With a Generator this inverts the distribution function by a table: each sample falls into one
    of 2048 equal cells of probability. In most of them all samples give the same count, which the
    table holds. In the others a finer random number decides.

    Args:
        image (ndarray): uint8, (H, W, 3).
        photons (int): Mean where the image is white, and the largest count. Up to 127.
        rng (RandomState | Generator): Source of the counts.

    Returns:
        ndarray: Integers from 0 to photons, shape of the image.
    """
    if isinstance(rng, np.random.RandomState):
        return np.minimum(rng.poisson(image / 255.0 * photons), photons)
    cumulated, cells = _tables(photons)
    cell = rng.integers(0, 2**_BITS, image.shape, dtype=np.uint16)
    counts = np.empty(image.shape, dtype=np.uint8)
    for rows in row_blocks(*image.shape[:2]):
        index = image[rows].astype(np.intp)
        index <<= _BITS
        index |= cell[rows]
        counts[rows] = cells.take(index)

    undecided = np.flatnonzero(counts & _UNDECIDED)
    counts &= _UNDECIDED - 1
    # A uniform number in 0 to 1 whose first 11 bits are the cell.
    uniform = rng.random(undecided.size)
    uniform += cell.ravel()[undecided]
    uniform *= 2.0**-_BITS
    levels, flat = image.ravel()[undecided], counts.ravel()
    # Inversion: the count is the first k with uniform < P(count <= k).
    while undecided.size:
        more = np.flatnonzero(uniform >= cumulated[levels, flat[undecided]])
        undecided, uniform, levels = undecided[more], uniform[more], levels[more]
        flat[undecided] += 1
    return counts


@lru_cache(maxsize=5)
def _tables(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """Return P(count <= k) for k <= photons, (256, photons + 1), and the count of each cell.

    The latter, uint8, (256 * 2048,), is the smallest count that falls into a cell, with
    ``_UNDECIDED`` set where it is not the only one.
    """
    counts = np.arange(photons)
    factorials = np.array([math.factorial(k) for k in range(photons)], dtype=np.float64)
    means = np.arange(256)[:, None] / 255 * photons
    cumulated = np.cumsum(np.exp(-means) * means**counts / factorials, axis=1)
    edges = np.arange(2**_BITS + 1) / 2**_BITS
    cells = np.empty((256, 2**_BITS), dtype=np.uint8)
    for level in range(256):
        lowest = np.searchsorted(cumulated[level], edges[:-1], side='right')
        highest = np.searchsorted(cumulated[level], edges[1:], side='left')
        cells[level] = np.where(lowest == highest, lowest, lowest | _UNDECIDED)
    # Counts are capped at photons: P(count <= photons) is infinite, so that inversion ends there.
    return np.pad(cumulated, ((0, 0), (0, 1)), constant_values=np.inf), cells.ravel()
