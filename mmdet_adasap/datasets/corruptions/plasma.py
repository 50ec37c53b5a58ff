# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np

from .draws import Rng, symmetric_uniform


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
