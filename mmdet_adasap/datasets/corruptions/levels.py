# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import cv2
import numpy as np

from .strips import strips

# Above the rounding errors of sums of levels, and so small that few other values are this near.
_NUDGES = {np.dtype(np.float32): 2**-10, np.dtype(np.float64): 2**-30}


def to_levels(values: np.ndarray) -> np.ndarray:
    """Turn real grey levels into 8-bit ones.

    Cuts the fraction off instead of rounding, because the benchmark does, and that costs half a
    level of brightness. Works in place where it can.

    Args:
        values (ndarray): Grey levels of any float type, nominally 0 to 255. Overwritten.

    Returns:
        ndarray: uint8, same shape.
    """
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def settle(values: np.ndarray, even: np.ndarray) -> np.ndarray:
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
    for rows in strips(*values.shape[:2]):
        strip = values[rows]
        strip += cv2.LUT(cv2.convertScaleAbs(strip), nudges).reshape(strip.shape)
        levels[rows] = to_levels(strip)
    return levels
