# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Enlargement by linear interpolation in which first and last pixels stay first and last.

OpenCV's resizing lets the outer edges of pixels stay in place instead, and its warping rounds
places to 1/32 pixel.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from .strips import strips


class Lines(NamedTuple):
    """Where the lines of an enlarged image lie between those of the image.

    Args:
        first (ndarray): intp, the line before.
        share (ndarray): float64, how far from there to the next one, 0 to 1.
        outside (ndarray): bool, whether rounding puts a line behind the last one. The reference
            finds 0 there.
    """

    first: np.ndarray
    share: np.ndarray
    outside: np.ndarray


def middle(length: int, factor: float) -> slice:
    """Say which part of a side fills the whole of it once it is enlarged.

    Args:
        length (int): Length of the side in pixels.
        factor (float): Enlargement, 1 or more.

    Returns:
        slice: The part, in the middle.
    """
    part = math.ceil(length / factor)
    start = (length - part) // 2
    return slice(start, start + part)


def enlarge(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge an image.

    Args:
        image (ndarray): float32 or float64, (H, W), at least 2 x 2.
        factor (float): Enlargement, 1 or more.

    Returns:
        ndarray: The same type, each side ``round(factor * side)``.
    """
    height, width = image.shape
    tall = _interpolate(image, _lines(0, height, factor))
    return cv2.transpose(_interpolate(cv2.transpose(tall), _lines(0, width, factor)))


def enlarged_sum(image: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Add up enlargements of the middle of an image, each as large as the image.

    Args:
        image (ndarray): float32, (H, W, 3).
        factors (Sequence[float]): Enlargements, each 1 or more.

    Returns:
        ndarray: float32, (H, W, 3).
    """
    height, width = image.shape[:2]
    sides = []
    for factor in factors:
        down, across = middle(height, factor), middle(width, factor)
        vertical = _lines(down.start, down.stop - down.start, factor)
        horizontal = _lines(0, across.stop - across.start, factor)
        sides.append((vertical, across, Lines(*(part[:width] for part in horizontal))))
    total = np.empty_like(image)
    for rows in strips(height, width):
        strip = np.zeros((width, rows.stop - rows.start, 3), dtype=np.float32)
        for vertical, across, horizontal in sides:
            tall = _interpolate(image, Lines(*(part[rows] for part in vertical)))
            strip += _interpolate(cv2.transpose(tall[:, across]), horizontal)
        total[rows] = cv2.transpose(strip)
    return total


def _lines(start: int, length: int, factor: float) -> Lines:
    """Place the lines of a part of an image, of this start and length, enlarged."""
    last = length - 1
    size = round(length * factor)
    places = np.arange(size) * (last / (size - 1))
    first = np.minimum(places.astype(np.intp), last - 1)
    return Lines(first + start, places - first, places > last)


def _interpolate(image: np.ndarray, lines: Lines) -> np.ndarray:
    """Take lines along the first axis."""
    flat = image.reshape(len(image), -1)
    found = flat.take(lines.first, axis=0)
    step = flat.take(lines.first + 1, axis=0)
    step -= found
    step *= lines.share[:, None].astype(image.dtype)
    found += step
    if lines.outside.any():
        found[lines.outside] = 0
    return found.reshape(-1, *image.shape[1:])
