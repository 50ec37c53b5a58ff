# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math
from functools import lru_cache

import numpy as np

from .draws import Rng
from .strips import strips

# Cells per level. Most lie between two steps of the distribution; the more, the larger the table.
_BITS = 11
_UNDECIDED = 128


def capped_poisson(image: np.ndarray, photons: int, rng: Rng) -> np.ndarray:
    """Draw min(Poisson(x photons), photons) for every grey level x, in units of 255.

    With a Generator each value falls into one of 2048 equal cells of probability. In most, every
    number gives the same count, which a table holds. In the others a finer number decides.

    Args:
        image (ndarray): uint8, (H, W, 3).
        photons (int): Mean where the image is white, and the largest count. Up to 127.
        rng (RandomState | Generator): Where the counts come from.

    Returns:
        ndarray: Integers from 0 to photons, shape of the image.
    """
    if isinstance(rng, np.random.RandomState):
        return np.minimum(rng.poisson(image / 255.0 * photons), photons)
    cumulated, cells = _tables(photons)
    cell = rng.integers(0, 2**_BITS, image.shape, dtype=np.uint16)
    counts = np.empty(image.shape, dtype=np.uint8)
    for rows in strips(*image.shape[:2]):
        index = image[rows].astype(np.intp)
        index <<= _BITS
        index |= cell[rows]
        counts[rows] = cells.take(index)

    left = np.flatnonzero(counts & _UNDECIDED)
    counts &= _UNDECIDED - 1
    within = rng.random(left.size)
    within += cell.ravel()[left]
    within *= 2.0**-_BITS
    levels, flat = image.ravel()[left], counts.ravel()
    while left.size:
        more = np.flatnonzero(within >= cumulated[levels, flat[left]])
        left, within, levels = left[more], within[more], levels[more]
        flat[left] += 1
    return counts


@lru_cache(maxsize=5)
def _tables(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """P(count <= k) for k <= photons, (256, photons + 1), and what is known of each cell's count.

    The latter, (256 * 2048,), is the smallest count that falls into it, with a mark where it is
    not the only one.
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
    return np.pad(cumulated, ((0, 0), (0, 1)), constant_values=np.inf), cells.ravel()
