# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import cv2
import numpy as np

from .levels import settle, to_levels
from .strips import strips


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
    for rows in strips(height, width):
        around = padded[rows.start : rows.stop + 2 * reach].astype(np.float32)
        strip = cv2.sepFilter2D(around, -1, kernel, kernel)[reach:-reach, reach:-reach]
        smooth[rows] = settle(strip, even[0] * 255)
    return smooth


def _smooth_as_scipy(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth levels in scipy's order of operations, to the last bit."""
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    smooth = np.empty_like(image)
    for rows in strips(height, width):
        around = np.arange(rows.start - reach, rows.stop + reach).clip(0, height - 1)
        strip = cv2.transpose(_smooth_rows(image[around] / 255.0, kernel))
        around = np.arange(-reach, width + reach).clip(0, width - 1)
        strip = cv2.transpose(_smooth_rows(strip[around], kernel))
        strip *= 255
        smooth[rows] = to_levels(strip)
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
