# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Sampling, rounding, blocks of rows and HSV: the arithmetic that the corruptions share.

The reference is the published code, imagecorruptions-imaug 1.1.5. A ``RandomState`` is drawn from
as the reference draws from numpy's global generator, in float64 and in the same order. A
``Generator`` gives the same distributions in float32.
"""

from collections.abc import Iterator

import cv2
import numpy as np

Rng = np.random.RandomState | np.random.Generator


def standard_normal(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Draw from N(0, 1).

    Args:
        rng (RandomState | Generator): Source of the numbers.
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
        rng (RandomState | Generator): Source of the numbers.
        half_width (float): Half the width of the interval around 0.
        shape (tuple[int, ...]): Shape of the result.

    Returns:
        ndarray: float64 from a RandomState, float32 from a Generator.
    """
    if isinstance(rng, np.random.RandomState):
        return rng.uniform(-half_width, half_width, shape)
    # Generator.uniform gives float64 alone.
    samples = rng.random(shape, dtype=np.float32)
    samples -= np.float32(0.5)
    samples *= np.float32(2 * half_width)
    return samples


def integer(rng: Rng, low: int, high: int) -> int:
    """Draw one of the integers low, ..., high - 1.

    Args:
        rng (RandomState | Generator): Source of the number.
        low (int): The smallest.
        high (int): One more than the largest.

    Returns:
        int: The number.
    """
    draw = rng.randint if isinstance(rng, np.random.RandomState) else rng.integers
    return int(draw(low, high))


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Convert grey levels to uint8 as the reference does: clip, then cut the fraction off.

    Rounding would make images brighter by half a level on average. Works in place where it can.

    Args:
        values (ndarray): Grey levels of any float type, nominally 0 to 255. Overwritten.

    Returns:
        ndarray: uint8, same shape.
    """
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


# Added before the fraction is cut off, so that rounding errors cannot decide. Both are chosen by
# us: an error of a sum of grey levels is near 2^-15 in float32 and 2^-44 in float64, and larger
# offsets would move values that are no whole level.
_OFFSETS = {np.dtype(np.float32): 2**-10, np.dtype(np.float64): 2**-30}


def round_like_reference(values: np.ndarray, of_constant: np.ndarray) -> np.ndarray:
    """Convert weighted averages of grey levels to uint8, with the reference's rounding errors.

    Where an image is constant, an average is a whole level but for rounding errors. These alone
    decide whether cutting off the fraction loses a level. The reference makes the same error
    wherever it averages that level, so the error is computed once for each of the 256.

    Args:
        values (ndarray): float32 or float64, grey levels. Overwritten.
        of_constant (ndarray): float, (256,), what the reference's arithmetic gives for a constant
            image of each level.

    Returns:
        ndarray: uint8, same shape.
    """
    offset = _OFFSETS[values.dtype]
    offsets = np.where(of_constant >= np.arange(256), offset, -offset).astype(values.dtype)
    levels = np.empty(values.shape, dtype=np.uint8)
    for rows in row_blocks(*values.shape[:2]):
        block = values[rows]
        # convertScaleAbs rounds to the nearest level, which is the index into the table.
        block += cv2.LUT(cv2.convertScaleAbs(block), offsets).reshape(block.shape)
        levels[rows] = to_uint8(block)
    return levels


def row_blocks(height: int, width: int, pixels: int = 2**14) -> Iterator[slice]:
    """Split an image into blocks of whole rows that fit into a processor's cache.

    Computing block by block needs no large temporary arrays. Allocating and freeing those takes
    longer than most of the arithmetic.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        pixels (int): About how many pixels a block has. Defaults to 2**14, of which three
            channels in float32 are 192 KiB.

    Yields:
        slice: The rows of the next block.
    """
    rows = max(pixels // width, 1)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def rgb_to_hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert 8-bit pixels from RGB to HSV.

    Args:
        pixels (ndarray): uint8, (N, 3), RGB.

    Returns:
        tuple[ndarray, ndarray, ndarray]: Hue, saturation and value, 0 to 1, float64, (N,) each.
    """
    red, green, blue = np.ascontiguousarray(pixels.T) / 255.0
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    # Greys divide by 0 here; they get hue and saturation 0 below.
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


# Which of (v, t, p, q) each channel is in each sixth of the hues, as in skimage.color.hsv2rgb,
# which the reference calls. v, t, p and q are the components of hsv_to_rgb, in its order.
_RED, _GREEN, _BLUE = np.array(
    [[0, 3, 2, 2, 1, 0], [1, 0, 0, 3, 2, 2], [2, 2, 1, 0, 0, 3]], dtype=np.uint8
)


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Convert pixels from HSV to RGB, and cut off the fractions of grey levels.

    Args:
        hue (ndarray): float64, (N,).
        saturation (ndarray): float64, (N,).
        value (ndarray): float64, (N,).

    Returns:
        ndarray: uint8, (N, 3), RGB.
    """
    fraction = hue * 6
    sixth = np.floor(fraction)
    fraction -= sixth
    # A hue of exactly 1 is red again, as 0 is.
    sixth = sixth.astype(np.intp) % 6
    components = [
        value,
        value * (1 - (1 - fraction) * saturation),
        value * (1 - saturation),
        value * (1 - fraction * saturation),
    ]
    levels = [(np.clip(component, 0, 1) * 255).astype(np.uint8) for component in components]
    return np.stack(
        [np.choose(channel.take(sixth), levels) for channel in (_RED, _GREEN, _BLUE)], axis=-1
    )
