# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Blur corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import math

import cv2
import numpy as np

from .draws import Rng
from .levels import to_levels


def motion_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Smear the image along one direction, drawn from U(-45, 45) degrees.

    ======== == == == == ==
    severity 1  2  3  4  5
    radius   10 15 15 15 20
    sigma    3  5  8  12 15
    ======== == == == == ==

    Both in pixels, whatever the image's size. The result is the weighted sum of 2 radius + 1
    copies of the image, the i-th moved by i pixels, with weights of one half of a Gaussian.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Where the direction comes from.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    exact = isinstance(rng, np.random.RandomState)
    return to_levels(smear(image, radius, sigma, rng.uniform(-45, 45), exact))


def smear(
    image: np.ndarray, radius: int, sigma: float, angle: float, exact: bool = False
) -> np.ndarray:
    """Sum copies of an image that are moved along a line, edges continued outwards.

    Copies that would leave the image entirely are left out and the weights not made up for, so
    images narrower than the line come out darker, as in the reference.

    Args:
        image (ndarray): uint8 or float, (H, W) or (H, W, C).
        radius (int): Half the length of the line, in pixels.
        sigma (float): Width of the Gaussian weights, in pixels.
        angle (float): Direction in degrees, 0 to the left, 90 up.
        exact (bool): Round as the reference does, in float64 and without fused operations, which
            takes about six times as long. Defaults to False.

    Returns:
        ndarray: float64 if exact, else float32; shape of the image.
    """
    height, width = image.shape[:2]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    weights /= weights.sum()
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # ceil(v - 1/2) is rounding with halves going down.
    moves = [(math.ceil(i * sin - 0.5), math.ceil(i * cos - 0.5)) for i in steps.tolist()]

    reach = int(steps[-1])
    padded = image.astype(np.float64 if exact else np.float32)
    padded = cv2.copyMakeBorder(padded, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    total = np.zeros_like(image, dtype=padded.dtype)
    for weight, (dy, dx) in zip(weights.tolist(), moves, strict=True):
        if abs(dy) >= height or abs(dx) >= width:
            break
        moved = padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        if exact:
            total += weight * moved
        else:
            cv2.scaleAdd(moved, weight, total, total)
    if not exact:
        # Else rounding alone, which differs between processors, would decide whether an even
        # area keeps its level or loses one when the fraction is cut off.
        total += np.float32(2**-10)
    return total
