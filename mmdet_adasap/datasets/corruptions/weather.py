# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Weather corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import numpy as np

from .draws import Rng, symmetric_uniform
from .levels import to_levels


def fog(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Add a cloud of plasma and scale so that the brightest level stays where it was.

    ========= === === === === ===
    severity   1   2   3   4   5
    thickness 1.5 2.0 2.5 2.5 3.0
    decay     2.0 2.0 1.7 1.5 1.4
    ========= === === === === ===

    (x + t p) m / (m + t), with t the thickness, p the cloud in 0 to 1 and m the largest value of
    the image, x and m in units of the full range. A smaller decay gives a rougher cloud.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the cloud comes from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    thickness, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = image.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = plasma(side, decay, rng)[:height, :width, None]
    largest = float(image.max()) / 255
    foggy = image + np.float32(255 * thickness) * cloud
    foggy *= np.float32(largest / (largest + thickness))
    return to_levels(foggy)


def plasma(side: int, decay: float, rng: Rng) -> np.ndarray:
    """Make a cloud by the diamond-square algorithm on a torus.

    Every level halves the grid: first the centre of each square gets the mean of its four
    corners, then the middle of each edge the mean of its four neighbours, each plus
    a U(-a, a) with a = 100 / decay^level.

    Args:
        side (int): Side of the map, a power of two.
        decay (float): How much the amplitude a shrinks from level to level.
        rng (RandomState | Generator): Where the heights come from.

    Returns:
        ndarray: float32, (side, side), smallest value 0, largest 1.
    """
    heights = np.zeros((side, side), dtype=np.float32)
    amplitude, step = 100.0, side
    while step > 1:
        half = step // 2

        def wobble(sums: np.ndarray, amplitude: float = amplitude) -> np.ndarray:
            return sums / 4 + amplitude * symmetric_uniform(rng, amplitude, sums.shape)

        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = wobble(pairs + np.roll(pairs, -1, axis=1))

        centres = heights[half::step, half::step]
        across = corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = wobble(centres + np.roll(centres, 1, axis=0) + across)
        down = corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = wobble(centres + np.roll(centres, 1, axis=1) + down)

        step, amplitude = half, amplitude / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights
