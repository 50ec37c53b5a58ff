# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import cv2
import numpy as np

from .levels import settle, to_levels

_STRIP = 16


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
        smooth = cv2.transpose(_smooth_columns(image / 255.0, kernel))
        smooth = cv2.transpose(_smooth_columns(smooth, kernel))
        smooth *= 255
        return to_levels(smooth)
    smooth = cv2.sepFilter2D(
        image.astype(np.float32), -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE
    )
    even = np.arange(256)[None] / 255.0
    for _ in range(2):
        even = _smooth_columns(even, kernel)
    return settle(smooth, even[0] * 255)


def _smooth_columns(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Smooth along the first axis in scipy's order of operations.

    Args:
        image (ndarray): float64, (H, ...).
        kernel (ndarray): An odd number of weights, the same on both sides.

    Returns:
        ndarray: float64, (H, ...).
    """
    reach = len(kernel) // 2
    padded = image[np.clip(np.arange(-reach, len(image) + reach), 0, len(image) - 1)]
    smooth = np.empty_like(image)
    # Strips of a few rows stay in the processor's cache.
    for top in range(0, len(image), _STRIP):
        strip = smooth[top : top + _STRIP]
        height = len(strip)
        np.multiply(padded[top + reach :][:height], kernel[reach], out=strip)
        for step in range(reach):
            pair = padded[top + step :][:height] + padded[top + 2 * reach - step :][:height]
            pair *= kernel[step]
            strip += pair
    return smooth
