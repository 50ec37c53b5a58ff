# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Gaussian smoothing, enlargement and motion: the linear filters that corruptions share.

OpenCV's own would differ from the reference: its resizing keeps the outer edges of pixels in
place instead of their centres, and its warping rounds positions to 1/32 pixel.
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
        truncate (float): Where it ends, in standard deviations. Defaults to 4.0, scipy's default.

    Returns:
        ndarray: float64, an odd number of weights.
    """
    # Rounded to the nearest integer, as in scipy.ndimage.gaussian_filter1d.
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    return weights / weights.sum()


def gaussian_smooth(image: np.ndarray, sigma: float, exact: bool) -> np.ndarray:
    """Smooth an 8-bit image with a Gaussian and cut off the fractions.

    Args:
        image (ndarray): uint8, (H, W, 3).
        sigma (float): Standard deviation in pixels; the border pixels are repeated outwards.
        exact (bool): Whether to repeat the reference's rounding errors everywhere, and not only
            where the image is constant. The kernel is symmetric, so that gradients, too, give
            whole levels but for these errors.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    kernel = gaussian_kernel(sigma)
    if exact:
        return _smooth_as_scipy(image, kernel)
    # As many equal rows as the kernel has weights give one row: twice, for both axes.
    of_constant = np.repeat(np.arange(256)[None] / 255.0, len(kernel), axis=0)
    for _ in range(2):
        of_constant = np.repeat(_smooth_rows(of_constant, kernel), len(kernel), axis=0)
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    smooth = np.empty_like(image)
    for rows in row_blocks(height, width):
        around = padded[rows.start : rows.stop + 2 * reach].astype(np.float32)
        block = cv2.sepFilter2D(around, -1, kernel, kernel)[reach:-reach, reach:-reach]
        smooth[rows] = round_like_reference(block, of_constant[0] * 255)
    return smooth


def _smooth_as_scipy(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth grey levels in scipy's order of operations, equal to the last bit."""
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    smooth = np.empty_like(image)
    for rows in row_blocks(height, width):
        # Clipped indices repeat the border pixels. Transposing lets both axes use _smooth_rows.
        around = np.arange(rows.start - reach, rows.stop + reach).clip(0, height - 1)
        block = cv2.transpose(_smooth_rows(image[around] / 255.0, kernel))
        around = np.arange(-reach, width + reach).clip(0, width - 1)
        block = cv2.transpose(_smooth_rows(block[around], kernel))
        block *= 255
        smooth[rows] = to_uint8(block)
    return smooth


def _smooth_rows(rows: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth along the first axis, without padding: (N, ...) to (N - len(kernel) + 1, ...)."""
    reach = len(kernel) // 2
    height = len(rows) - 2 * reach
    total = rows[reach : reach + height] * kernel[reach]
    # scipy adds the two rows at a distance first and multiplies once, from the outside in.
    for step in range(reach):
        pair = rows[step : step + height] + rows[2 * reach - step :][:height]
        pair *= kernel[step]
        total += pair
    return total


def enlarge(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge an image by linear interpolation; its first and last pixels stay where they are.

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
    """Return the sum of enlargements of the centre of an image, each as large as the image.

    Args:
        image (ndarray): float32, (H, W, 3).
        factors (Sequence[float]): Enlargements, each 1 or more.

    Returns:
        ndarray: float32, (H, W, 3).
    """
    height, width = image.shape[:2]
    sides = []
    for factor in factors:
        down, across = central_slice(height, factor), central_slice(width, factor)
        vertical = _lines(down.start, down.stop - down.start, factor)
        horizontal = _lines(0, across.stop - across.start, factor)
        # Rounding may make the enlarged part a pixel wider than the image.
        sides.append((vertical, across, _Lines(*(part[:width] for part in horizontal))))
    total = np.empty_like(image)
    for rows in row_blocks(height, width):
        block = np.zeros((width, rows.stop - rows.start, 3), dtype=np.float32)
        for vertical, across, horizontal in sides:
            tall = _interpolate(image, _Lines(*(part[rows] for part in vertical)))
            block += _interpolate(cv2.transpose(tall[:, across]), horizontal)
        total[rows] = cv2.transpose(block)
    return total


def central_slice(length: int, factor: float) -> slice:
    """Return the central part of a side that fills the whole side once it is enlarged.

    Args:
        length (int): Length of the side in pixels.
        factor (float): Enlargement, 1 or more.

    Returns:
        slice: The part.
    """
    part = math.ceil(length / factor)
    start = (length - part) // 2
    return slice(start, start + part)


class _Lines(NamedTuple):
    """Positions of the rows (or columns) of an enlarged image between those of the image.

    Attributes:
        first (ndarray): intp, the row before.
        fraction (ndarray): float64, distance from there, 0 to 1 of the way to the next row.
        outside (ndarray): bool, whether rounding puts a row behind the last one. The reference
            reads 0 there.
    """

    first: np.ndarray
    fraction: np.ndarray
    outside: np.ndarray


def _lines(start: int, length: int, factor: float) -> _Lines:
    """Return the rows of an enlarged part of an image, which has this start and length."""
    last = length - 1
    size = round(length * factor)
    # First and last rows stay first and last, as scipy.ndimage.zoom has it by default.
    positions = np.arange(size) * (last / (size - 1))
    first = np.minimum(positions.astype(np.intp), last - 1)
    return _Lines(first + start, positions - first, positions > last)


def _interpolate(image: np.ndarray, lines: _Lines) -> np.ndarray:
    """Interpolate rows linearly along the first axis."""
    flat = image.reshape(len(image), -1)
    rows = flat.take(lines.first, axis=0)
    step = flat.take(lines.first + 1, axis=0)
    step -= rows
    step *= lines.fraction[:, None].astype(image.dtype)
    rows += step
    if lines.outside.any():
        rows[lines.outside] = 0
    return rows.reshape(-1, *image.shape[1:])


def apply_motion_kernel(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Filter an image with :func:`motion_kernel`; the border pixels are repeated outwards.

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
    kernel = motion_kernel(height, width, radius, sigma, angle)
    for rows in row_blocks(height, width):
        block = total[rows]
        for weight, dy, dx in kernel:
            top, left = rows.start + reach + dy, reach + dx
            moved = padded[top : top + len(block), left : left + width]
            cv2.scaleAdd(moved, weight, block, block)
    return total


def motion_kernel_on_constant(
    values: np.ndarray, size: tuple[int, int], radius: int, sigma: float, angle: float
) -> np.ndarray:
    """Filter constant images, in the reference's order of operations.

    Args:
        values (ndarray): float64, the value of each image.
        size (tuple[int, int]): Height and width of the images.
        radius (int): As for :func:`apply_motion_kernel`.
        sigma (float): As for :func:`apply_motion_kernel`.
        angle (float): As for :func:`apply_motion_kernel`.

    Returns:
        ndarray: float64, the value of each filtered image.
    """
    total = np.zeros_like(values)
    for weight, _, _ in motion_kernel(*size, radius, sigma, angle):
        total += weight * values
    return total


def motion_kernel(
    height: int, width: int, radius: int, sigma: float, angle: float
) -> list[tuple[float, int, int]]:
    """Return the kernel of motion blur: half a Gaussian along a line.

    Weights that would read from beyond the image entirely are left out, and the others are not
    scaled up for it. So images smaller than the line become darker, as in the reference.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        radius (int): Half the length of the line, in pixels.
        sigma (float): Width of the Gaussian weights, in pixels.
        angle (float): Direction in degrees, 0 to the left, 90 up.

    Returns:
        list[tuple[float, int, int]]: For each pixel of the line its weight and its offset, down
        and to the right.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    weights /= weights.sum()
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    kernel = []
    for step, weight in enumerate(weights.tolist()):
        # ceil(v - 1/2) is rounding with halves going down.
        dy, dx = math.ceil(step * sin - 0.5), math.ceil(step * cos - 0.5)
        if abs(dy) >= height or abs(dx) >= width:
            break
        kernel.append((weight, dy, dx))
    return kernel
