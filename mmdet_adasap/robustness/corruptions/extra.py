# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The four corruptions that ImageNet-C (arXiv:1903.12261) keeps for validation."""

import cv2
import numpy as np

from .filters import gaussian_kernel, gaussian_smooth
from .numerics import Rng, hsv_to_rgb, rgb_to_hsv, row_blocks, standard_normal, to_uint8


def speckle_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Add normal noise in proportion to every pixel and channel: x + x N(0, sigma^2).

    ======== ==== ==== ==== ==== ====
    severity  1    2    3    4    5
    sigma    0.15 0.20 0.35 0.45 0.60
    ======== ==== ==== ==== ==== ====

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of the noise.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    sigma = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    noisy = np.empty_like(image)
    for rows in row_blocks(*image.shape[:2]):
        noise = standard_normal(rng, image[rows].shape)
        noise *= sigma
        noise += 1
        noise *= image[rows]
        noisy[rows] = to_uint8(noise)
    return noisy


def gaussian_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Average with the weights of a Gaussian that ends at four standard deviations.

    ======== = = = = =
    severity 1 2 3 4 5
    sigma    1 2 3 4 6
    ======== = = = = =

    sigma in pixels, whatever the image's size.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    exact = isinstance(rng, np.random.RandomState)
    return gaussian_smooth(image, (1, 2, 3, 4, 6)[severity - 1], exact)


def spatter(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Splash drops of water (severity 1 to 3) or mud (4 and 5) over the image.

    ========= ==== ==== ==== ==== ====
    severity   1    2    3    4    5
    mean      0.65 0.65 0.65 0.65 0.67
    std       0.3  0.3  0.3  0.3  0.4
    sigma      4    3    2    1    1
    threshold 0.69 0.68 0.68 0.65 0.65
    strength  0.6  0.6  0.5
    softness                 1.5  1.5
    ========= ==== ==== ==== ==== ====

    Drops are where N(mean, std^2), smoothed with a Gaussian of sigma pixels, is above the
    threshold. Water is pale turquoise, brighter towards one side of a drop, and added with this
    strength. Mud is brown, smoothed with a Gaussian of softness pixels, and covers.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of the drops.

    Returns:
        ndarray: uint8, (H, W, 3). The image itself where no drop falls on a small one, which
        water of the reference turns black.
    """
    settings = (
        (0.65, 0.3, 4, 0.69, _water, 0.6),
        (0.65, 0.3, 3, 0.68, _water, 0.6),
        (0.65, 0.3, 2, 0.68, _water, 0.5),
        (0.65, 0.3, 1, 0.65, _mud, 1.5),
        (0.67, 0.4, 1, 0.65, _mud, 1.5),
    )
    mean, std, sigma, threshold, apply_liquid, amount = settings[severity - 1]
    liquid = standard_normal(rng, image.shape[:2])
    liquid *= std
    liquid += mean
    liquid = _smooth(liquid, sigma)
    return apply_liquid(image, np.where(liquid < threshold, 0, liquid), amount)


def _water(image: np.ndarray, liquid: np.ndarray, strength: float) -> np.ndarray:
    # All numbers are the reference's: Canny's thresholds, distances up to 20 pixels, the kernel
    # that lights drops from one side, and the colour.
    depth = (liquid * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(depth, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    slope = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = cv2.filter2D(cv2.equalizeHist(distance), cv2.CV_8U, slope)
    drops = depth * cv2.blur(lit, (3, 3)).astype(np.float32)
    if not drops.any():
        return image.copy()
    drops /= drops.max()
    drops *= strength
    turquoise = np.array([175, 238, 238]) / 255
    splashed = image / np.float32(255) + drops[..., None] * turquoise.astype(np.float32)
    splashed *= 255
    return to_uint8(splashed)


def _mud(image: np.ndarray, liquid: np.ndarray, softness: float) -> np.ndarray:
    cover = _smooth((liquid > 0).astype(liquid.dtype), softness)
    # The threshold and the brown, in RGB, are the reference's.
    cover = np.where(cover < 0.8, 0, cover)[..., None]
    return to_uint8(image * (1 - cover) + cover * np.array([63, 42, 20], dtype=cover.dtype))


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    kernel = gaussian_kernel(sigma)
    return cv2.sepFilter2D(values, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def saturate(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Change the saturation of HSV: clip(s a + b).

    ======== === === === === ===
    severity  1   2   3   4   5
    a        0.3 0.1  2   5  20
    b         0   0   0  0.1 0.2
    ======== === === === === ===

    Greys have the hue of red, and become reddish at severities 4 and 5.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    factor, added = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
    saturated = np.empty_like(image)
    for rows in row_blocks(*image.shape[:2]):
        hue, saturation, value = rgb_to_hsv(image[rows].reshape(-1, 3))
        stronger = np.clip(saturation * factor + added, 0, 1)
        saturated[rows] = hsv_to_rgb(hue, stronger, value).reshape(image[rows].shape)
    return saturated
