# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math

import cv2
import numpy as np

from .strips import strips


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
    for rows in strips(height, width):
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
