# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Digital corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from .filters import gaussian_kernel
from .numerics import Rng, round_like_reference, row_blocks, symmetric_uniform, to_uint8


def contrast(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Pull every channel towards its mean: (x - mean) c + mean.

    ======== === === === === ====
    severity  1   2   3   4   5
    c        0.4 0.3 0.2 0.1 0.05
    ======== === === === === ====

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    # The sum of integers is exact, so the mean is the same on every machine.
    means = np.array(cv2.sumElems(image)[:3]) / (image.shape[0] * image.shape[1])
    levels = np.arange(256, dtype=np.float64)[:, None]
    table = to_uint8((levels - means) * factor + means)
    return cv2.LUT(image, table[None])


def elastic_transform(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Move every pixel by a smooth random field.

    ======== ==== ===== ===== ==== ====
    severity  1     2     3    4    5
    alpha    12.5 16.25 21.25 25.0 30.0
    ======== ==== ===== ===== ==== ====

    Rows and columns are moved by alpha times U(-m, m), m = 0.005 H, smoothed by a Gaussian with
    standard deviations of 0.01 H and 0.01 W pixels that ends at three of them. Edges are mirrored.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of the field.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    alpha = (12.5, 16.25, 21.25, 25.0, 30.0)[severity - 1]
    height, width = image.shape[:2]
    kernels = gaussian_kernel(0.01 * width, 3), gaussian_kernel(0.01 * height, 3)

    def field() -> np.ndarray:
        rough = symmetric_uniform(rng, 0.005 * height, (height, width)).astype(np.float32)
        return cv2.sepFilter2D(rough, -1, *kernels, borderType=cv2.BORDER_REFLECT) * alpha

    right, down = field(), field()
    # The reference computes in 0 to 1, and interpolation leaves a constant image as it is.
    of_constant = np.arange(256, dtype=np.float32) / np.float32(255) * np.float32(255)
    moved = np.empty_like(image)
    for rows in row_blocks(height, width):
        block = displace(image, rows, down[rows], right[rows])
        moved[rows] = round_like_reference(block, of_constant)
    return moved


def displace(image: np.ndarray, rows: slice, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Displace the pixels of some rows, by linear interpolation.

    OpenCV's own interpolation rounds positions to 1/32 pixel, which is several grey levels at a
    sharp edge. So the four neighbours are fetched by OpenCV and combined here.

    Args:
        image (ndarray): uint8, (H, W, 3); beyond its edges it is mirrored.
        rows (slice): The rows.
        down (ndarray): float32, (rows, W), how many pixels below a pixel its new value is read.
        right (ndarray): float32, (rows, W), the same to the right.

    Returns:
        ndarray: float32, (rows, W, 3).
    """
    above, left = np.floor(down), np.floor(right)
    # Once for each of the three channels, so that one product covers all of them.
    fractions = [cv2.merge([part] * 3) for part in (right - left, down - above)]
    left += np.arange(image.shape[1], dtype=np.float32)
    above += np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    # int16 is what remap takes for whole positions.
    positions = cv2.merge([left, above]).astype(np.int16)

    def corner(x: int, y: int) -> np.ndarray:
        moved = cv2.add(positions, (x, y, 0, 0))
        pixels = cv2.remap(image, moved, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
        return pixels.astype(np.float32)

    def interpolate(first: np.ndarray, second: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        second -= first
        second *= fraction
        first += second
        return first

    upper = interpolate(corner(0, 0), corner(1, 0), fractions[0])
    lower = interpolate(corner(0, 1), corner(1, 1), fractions[0])
    return interpolate(upper, lower, fractions[1])


def pixelate(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Shrink by averaging and enlarge by repeating pixels.

    ======== === === === === ====
    severity  1   2   3   4   5
    share    0.6 0.5 0.4 0.3 0.25
    ======== === === === === ====

    Share of height and of width that is left in between, in whole pixels.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize(
        (int(width * share), int(height * share)), Image.Resampling.BOX
    )
    return np.array(small.resize((width, height), Image.Resampling.NEAREST))


def jpeg_compression(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Store as JPEG and read back.

    ======== == == == == ==
    severity 1  2  3  4  5
    quality  25 18 15 10 7
    ======== == == == == ==

    Quality as libjpeg counts it. Pixels depend on the libjpeg that Pillow is built with.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    quality = (25, 18, 15, 10, 7)[severity - 1]
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG', quality=quality)
    return np.array(Image.open(buffer))
