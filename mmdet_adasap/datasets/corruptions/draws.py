# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Random numbers for the corruptions, from either kind of numpy generator.

A ``RandomState`` is drawn from as the published reference draws from numpy's global generator,
in float64 and in the same order; a ``Generator`` gives the same distributions in float32.
"""

import numpy as np

Rng = np.random.RandomState | np.random.Generator


def standard_normal(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from N(0, 1).

    Args:
        rng (RandomState | Generator): Where the numbers come from.
        shape (tuple[int, ...]): Shape of the result.

    Returns:
        ndarray: float64 from a RandomState, float32 from a Generator.
    """
    if isinstance(rng, np.random.RandomState):
        return rng.standard_normal(shape)
    return rng.standard_normal(shape, dtype=np.float32)


def symmetric_uniform(rng: Rng, half_width: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from U(-half_width, half_width).

    Args:
        rng (RandomState | Generator): Where the numbers come from.
        half_width (float): Half the width of the interval around 0.
        shape (tuple[int, ...]): Shape of the result.

    Returns:
        ndarray: float64 from a RandomState, float32 from a Generator.
    """
    if isinstance(rng, np.random.RandomState):
        return rng.uniform(-half_width, half_width, shape)
    draws = rng.random(shape, dtype=np.float32)
    draws -= np.float32(0.5)
    draws *= np.float32(2 * half_width)
    return draws


def integer(rng: Rng, low: int, high: int) -> int:
    """Draw one of the integers low, ..., high - 1.

    Args:
        rng (RandomState | Generator): Where the number comes from.
        low (int): The smallest.
        high (int): One more than the largest.

    Returns:
        int: The number.
    """
    draw = rng.randint if isinstance(rng, np.random.RandomState) else rng.integers
    return int(draw(low, high))
