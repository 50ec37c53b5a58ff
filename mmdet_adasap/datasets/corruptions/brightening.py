# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from functools import lru_cache

import cv2
import numpy as np

from .hsv import hsv_to_levels, rgb_to_hsv
from .strips import strips

_UNDECIDED = 256


def brighten(image: np.ndarray, added: float) -> np.ndarray:
    """Add to the value of HSV, keeping hue and saturation.

    All three channels grow by the same factor then, which depends on the largest of them.

    Args:
        image (ndarray): uint8, (H, W, 3).
        added (float): What is added, in units of the full range.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    height, width = image.shape[:2]
    table = _table(added)
    bright = np.empty_like(image)
    left = []
    for rows in strips(height, width):
        red, green, blue = cv2.split(image[rows])
        index = cv2.merge([cv2.max(cv2.max(red, green), blue)] * 3).astype(np.intp)
        index <<= 8
        index |= image[rows]
        found = table.take(index)
        left.append(np.flatnonzero(found & _UNDECIDED) // 3 + rows.start * width)
        bright[rows] = found
    left = np.concatenate(left)
    hue, saturation, value = rgb_to_hsv(image.reshape(-1, 3).take(left, axis=0))
    value = np.minimum(value + added, 1)
    bright.reshape(-1, 3)[left] = hsv_to_levels(hue, saturation, value)
    return bright


@lru_cache(maxsize=5)
def _table(added: float) -> np.ndarray:
    """Level of a channel for each largest level of the three and each own level, flat.

    Undecided is what is a whole level but for rounding errors, which depend on all three.
    """
    levels = np.arange(256)
    value = levels / 255.0
    brighter = np.clip(value + added, 0, 1)
    # Black has no hue, so that all three get the largest.
    factor = np.divide(brighter, value, out=np.zeros(256), where=value > 0)
    scaled = np.minimum(factor[:, None] * levels, 255)
    undecided = np.abs(scaled - np.rint(scaled)) < 1e-9
    undecided &= (levels > 0) & (levels < levels[:, None])
    table = scaled.astype(np.uint16) | np.where(undecided, _UNDECIDED, 0).astype(np.uint16)
    np.fill_diagonal(table, (brighter * 255).astype(np.uint16))
    return table.ravel()
