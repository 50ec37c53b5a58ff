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

from .numerics import round_like_reference, row_blocks, to_uint8


def gaussian_kernel(sigma: float, truncate: float = 4.0) -> np.ndarray:
    """Sample a normalised Gaussian as scipy.ndimage does, which the reference smooths with.

    Args:
        sigma (float): Standard deviation in pixels.
        truncate (float): Where it ends, in standard deviations. Defaults to 4.0.

    Returns:
        ndarray: float64, an odd number of weights.
    """
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    return weights / weights.sum()


def smooth_levels(image: np.ndarray, sigma: float, exact: bool) -> np.ndarray:
    """Smooth an 8-bit image with a Gaussian and cut off the fractions.

    Args:
        image (ndarray): uint8, (H, W, 3).
        sigma (float): Standard deviation in pixels; edges are continued outwards.
        exact (bool): Whether to repeat the reference's rounding errors. The weights are the same
            on both sides, so that gradients, too, give whole levels but for these.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    kernel = gaussian_kernel(sigma)
    if exact:
        return _smooth_as_scipy(image, kernel)
    even = np.repeat(np.arange(256)[None] / 255.0, len(kernel), axis=0)
    for _ in range(2):
        even = np.repeat(_smooth_rows(even, kernel), len(kernel), axis=0)
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    smooth = np.empty_like(image)
    for rows in row_blocks(height, width):
        around = padded[rows.start : rows.stop + 2 * reach].astype(np.float32)
        strip = cv2.sepFilter2D(around, -1, kernel, kernel)[reach:-reach, reach:-reach]
        smooth[rows] = round_like_reference(strip, even[0] * 255)
    return smooth


def _smooth_as_scipy(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth levels in scipy's order of operations, to the last bit."""
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    smooth = np.empty_like(image)
    for rows in row_blocks(height, width):
        around = np.arange(rows.start - reach, rows.stop + reach).clip(0, height - 1)
        strip = cv2.transpose(_smooth_rows(image[around] / 255.0, kernel))
        around = np.arange(-reach, width + reach).clip(0, width - 1)
        strip = cv2.transpose(_smooth_rows(strip[around], kernel))
        strip *= 255
        smooth[rows] = to_uint8(strip)
    return smooth


def _smooth_rows(rows: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth along the first axis, from which as many rows are missing then as go beyond one."""
    reach = len(kernel) // 2
    height = len(rows) - 2 * reach
    total = rows[reach : reach + height] * kernel[reach]
    for step in range(reach):
        pair = rows[step : step + height] + rows[2 * reach - step :][:height]
        pair *= kernel[step]
        total += pair
    return total


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
    for rows in row_blocks(height, width):
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


def smear(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Sum copies of an image that are moved along a line, edges continued outwards.

    Copies that would leave the image entirely are left out and the weights not made up for, so
    images narrower than the line come out darker, as in the reference.

    Args:
        image (ndarray): float32 or float64, (H, W) or (H, W, C).
        radius (int): Half the length of the line, in pixels.
        sigma (float): Width of the Gaussian weights, in pixels.
        angle (float): Direction in degrees, 0 to the left, 90 up.

    Returns:
        ndarray: The same type and shape.
    """
    height, width = image.shape[:2]
    reach = 2 * radius
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    total = np.zeros_like(image)
    copies = _copies(height, width, radius, sigma, angle)
    for rows in row_blocks(height, width):
        strip = total[rows]
        for weight, dy, dx in copies:
            top, left = rows.start + reach + dy, reach + dx
            moved = padded[top : top + len(strip), left : left + width]
            cv2.scaleAdd(moved, weight, strip, strip)
    return total


def smear_even(
    values: np.ndarray, size: tuple[int, int], radius: int, sigma: float, angle: float
) -> np.ndarray:
    """Smear images that have one value everywhere, in the reference's order of operations.

    Args:
        values (ndarray): float64, one value for each image.
        size (tuple[int, int]): Height and width of the images.
        radius (int): As for :func:`smear`.
        sigma (float): As for :func:`smear`.
        angle (float): As for :func:`smear`.

    Returns:
        ndarray: float64, the value of each image afterwards.
    """
    total = np.zeros_like(values)
    for weight, _, _ in _copies(*size, radius, sigma, angle):
        total += weight * values
    return total


def _copies(
    height: int, width: int, radius: int, sigma: float, angle: float
) -> list[tuple[float, int, int]]:
    """Weight and place, down and to the right, that each copy of the image is taken from."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    weights /= weights.sum()
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    copies = []
    for step, weight in enumerate(weights.tolist()):
        # ceil(v - 1/2) is rounding with halves going down.
        dy, dx = math.ceil(step * sin - 0.5), math.ceil(step * cos - 0.5)
        if abs(dy) >= height or abs(dx) >= width:
            break
        copies.append((weight, dy, dx))
    return copies
