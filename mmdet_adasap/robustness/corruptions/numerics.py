# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Random numbers for the corruptions, from either kind of numpy generator.

A ``RandomState`` is drawn from as the published reference draws from numpy's global generator,
in float64 and in the same order; a ``Generator`` gives the same distributions in float32.
"""

from collections.abc import Iterator

import cv2
import numpy as np

# Above the rounding errors of sums of levels, and so small that few other values are this near.
_NUDGES = {np.dtype(np.float32): 2**-10, np.dtype(np.float64): 2**-30}


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Turn real grey levels into 8-bit ones.

    Cuts the fraction off instead of rounding, because the benchmark does, and that costs half a
    level of brightness. Works in place where it can.

    Args:
        values (ndarray): Grey levels of any float type, nominally 0 to 255. Overwritten.

    Returns:
        ndarray: uint8, same shape.
    """
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def round_like_reference(values: np.ndarray, even: np.ndarray) -> np.ndarray:
    """Turn grey levels that an average gave into 8-bit ones, as the reference rounds.

    Where the image is even, an average is a whole level but for rounding errors, and these alone
    decide whether cutting off the fraction loses a level. The reference makes the same error
    wherever a level is even, so it is worked out once for each of the 256.

    Args:
        values (ndarray): float32 or float64, grey levels. Overwritten.
        even (ndarray): float, (256,), what the reference's arithmetic makes of an image that has
            this level everywhere.

    Returns:
        ndarray: uint8, same shape.
    """
    nudge = _NUDGES[values.dtype]
    nudges = np.where(even >= np.arange(256), nudge, -nudge).astype(values.dtype)
    levels = np.empty(values.shape, dtype=np.uint8)
    for rows in row_blocks(*values.shape[:2]):
        strip = values[rows]
        strip += cv2.LUT(cv2.convertScaleAbs(strip), nudges).reshape(strip.shape)
        levels[rows] = to_uint8(strip)
    return levels


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


def row_blocks(height: int, width: int, pixels: int = 2**14) -> Iterator[slice]:
    """Cut an image into strips of whole rows that stay in a processor's cache.

    What is computed strip by strip needs no large arrays in between. To get those from the
    system, and to give them back, takes longer than most of the arithmetic does.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        pixels (int): About how many pixels a strip has. Defaults to 2**14.

    Yields:
        slice: The rows of the next strip.
    """
    rows = max(pixels // width, 1)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


# Which of (v, t, p, q) each channel is in each sixth of the hues.
_RED, _GREEN, _BLUE = np.array(
    [[0, 3, 2, 2, 1, 0], [1, 0, 0, 3, 2, 2], [2, 2, 1, 0, 0, 3]], dtype=np.uint8
)


def rgb_to_hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert 8-bit pixels.

    Args:
        pixels (ndarray): uint8, (N, 3), RGB.

    Returns:
        tuple[ndarray, ndarray, ndarray]: Hue, saturation and value, 0 to 1, float64, (N,) each.
    """
    red, green, blue = np.ascontiguousarray(pixels.T) / 255.0
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    with np.errstate(invalid='ignore', divide='ignore'):
        saturation = spread / value
        hue = np.where(
            blue == value,
            4.0 + (red - green) / spread,
            np.where(green == value, 2.0 + (blue - red) / spread, (green - blue) / spread),
        )
    hue /= 6.0
    hue -= np.floor(hue)
    grey = spread == 0
    hue[grey] = 0
    saturation[grey] = 0
    return hue, saturation, value


def hsv_to_levels(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Convert back, and cut off the fractions of levels.

    Args:
        hue (ndarray): float64, (N,).
        saturation (ndarray): float64, (N,).
        value (ndarray): float64, (N,).

    Returns:
        ndarray: uint8, (N, 3), RGB.
    """
    sixth = hue * 6
    part = np.floor(sixth)
    sixth -= part
    choice = part.astype(np.intp) % 6
    components = [
        value,
        value * (1 - (1 - sixth) * saturation),
        value * (1 - saturation),
        value * (1 - sixth * saturation),
    ]
    levels = [(np.clip(component, 0, 1) * 255).astype(np.uint8) for component in components]
    return np.stack(
        [np.choose(channel.take(choice), levels) for channel in (_RED, _GREEN, _BLUE)], axis=-1
    )
