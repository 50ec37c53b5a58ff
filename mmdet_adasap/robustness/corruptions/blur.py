# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Blur corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

from .filters import (
    apply_motion_kernel,
    enlarged_sum,
    gaussian_smooth,
    motion_kernel_on_constant,
)
from .numerics import Rng, round_like_reference, row_blocks, to_uint8


def defocus_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Average over a disk, whose edge is softened by a Gaussian.

    ======== === === === === ===
    severity  1   2   3   4   5
    radius    3   4   6   8  10
    sigma    0.1 0.5 0.5 0.5 0.5
    ======== === === === === ===

    Both in pixels, whatever the image's size.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    radius, sigma = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    return round_like_reference(defocus(image, radius, sigma), defocus_on_constant(radius, sigma))


def glass_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Smooth, let pixels be overwritten by random neighbours, and smooth again.

    ========== === === === === ===
    severity    1   2   3   4   5
    sigma      0.7 0.9 1.0 1.1 1.5
    reach       1   2   2   3   4
    iterations  2   1   3   2   2
    ========== === === === === ===

    sigma and reach in pixels. The reference means to swap pixels, but its swap is a copy.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of the neighbours.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    # sigma, reach and iterations.
    settings = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    sigma, reach, iterations = settings[severity - 1]
    height, width = image.shape[:2]
    # Indices are shuffled instead of pixels: an iteration is one take() of three times less data.
    sources = shuffled_indices(height, width, reach, rng)
    for _ in range(iterations - 1):
        sources = sources.take(shuffled_indices(height, width, reach, rng))
    exact = isinstance(rng, np.random.RandomState)
    pixels = gaussian_smooth(image, sigma, exact).reshape(-1, 3)
    return gaussian_smooth(pixels.take(sources, axis=0).reshape(image.shape), sigma, exact)


def motion_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Blur the image along one direction, sampled from U(-45, 45) degrees.

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
        rng (RandomState | Generator): Source of the direction.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    angle = rng.uniform(-45, 45)
    if isinstance(rng, np.random.RandomState):
        # float32 loses the small weights at the end of the line, which decide the rounding of
        # pixels beside constant areas.
        total = apply_motion_kernel(image.astype(np.float64), radius, sigma, angle)
        levels = np.arange(256, dtype=np.float64)
        size = image.shape[:2]
        of_constant = motion_kernel_on_constant(levels, size, radius, sigma, angle)
        return round_like_reference(total, of_constant)
    total = apply_motion_kernel(image.astype(np.float32), radius, sigma, angle)
    # Without this, rounding errors, which differ between processors, would decide whether a
    # constant area keeps its level or loses one. 2^-10 is as in round_like_reference.
    total += np.float32(2**-10)
    return to_uint8(total)


def zoom_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Average the image and enlargements of its centre.

    ======== ==== ==== ==== ==== ====
    severity  1    2    3    4    5
    below    1.11 1.16 1.21 1.26 1.31
    step     0.01 0.01 0.02 0.02 0.03
    ======== ==== ==== ==== ==== ====

    Enlarged by 1, 1 + step, and so on. The image itself has the weight of two of them.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    settings = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    factors = np.arange(1, *settings[severity - 1])
    pixels = image.astype(np.float32)
    total = enlarged_sum(pixels, factors[1:].tolist())
    pixels *= 2
    total += pixels
    total /= len(factors) + 1

    # A constant image in the reference's order of operations: one sum, in float32, in 0 to 1.
    constant = np.arange(256, dtype=np.float32) / np.float32(255)
    sums = np.zeros_like(constant)
    for _ in factors:
        sums += constant
    return round_like_reference(
        total, (constant + sums) / np.float32(len(factors) + 1) * np.float32(255)
    )


def defocus(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Average an image over a soft disk, mirrored at the edges.

    Args:
        image (ndarray): uint8, (H, W, 3).
        radius (int): Radius of the disk in pixels.
        sigma (float): Standard deviation of the Gaussian that softens it, in pixels.

    Returns:
        ndarray: float32, (H, W, 3).
    """
    height, width = image.shape[:2]
    # The disk, and what the Gaussian adds: one pixel with 3 x 3 weights, two with 5 x 5.
    reach = radius + 2
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    average = np.empty(image.shape, dtype=np.float32)
    # Twice the pixels of other corruptions: the rows around each block are computed with it.
    for rows in row_blocks(height, width, 2**15):
        around = padded[rows.start : rows.stop + 2 * reach]
        average[rows] = _defocus_inside(around, radius, sigma)
    return average


def _defocus_inside(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """Average the pixels that have radius + 2 others on each side.

    The reference filters with a soft disk. This softens the sums over a hard disk, which an
    integral image gives in a few reads, and corrects the few weights that differ at the border:
    the reference cuts its kernel off there.
    """
    side = _soft_side(radius)
    soft = cv2.GaussianBlur(_disk_sums(image, radius), (side, side), sigma)[2:-2, 2:-2]
    corrections = _corrections(radius, sigma)
    # The smallest corrections are left out, so the rest is scaled to the right sum of weights.
    # Each stands for four rows of the kernel: above, below, left and right of the centre.
    rest = _soft_disk(radius, sigma).sum() - 4 * sum(weights.sum() for _, weights in corrections)
    soft = soft * np.float32(rest / _disk(radius, radius).sum())
    if corrections:
        image = image.astype(np.float32)
    centre = slice(radius + 2, -radius - 2)
    for distance, weights in corrections:
        before = slice(radius + 2 - distance, -radius - 2 - distance)
        # A stop of 0 would mean an empty slice: at the end it has to be None.
        behind = slice(radius + 2 + distance, distance - radius - 2 or None)
        # The kernel is symmetric, so rows above and below share one product, and columns too.
        soft += cv2.filter2D(image[before] + image[behind], -1, weights[None])[:, centre]
        columns = image[:, before] + image[:, behind]
        soft += cv2.filter2D(columns, -1, weights[:, None])[centre]
    return soft


def defocus_on_constant(radius: int, sigma: float) -> np.ndarray:
    """Return the average that the reference computes for constant images.

    Args:
        radius (int): As for :func:`defocus`.
        sigma (float): As for :func:`defocus`.

    Returns:
        ndarray: float64, (256,), the average for each level.
    """
    return np.arange(256) * _soft_disk(radius, sigma).sum(dtype=np.float64)


def _disk_sums(image: np.ndarray, radius: int) -> np.ndarray:
    """Sum over a hard disk, where it lies inside the image.

    The disk is the union of centred rectangles. The widest and lowest comes first, then what each
    narrower and higher one adds above and below. An integral image gives each in four reads.

    Returns:
        ndarray: float32, which holds these sums exactly: 10 pixels of radius give 317 * 255.
    """
    height, width = (side - 2 * radius for side in image.shape[:2])
    integral = cv2.integral(image)
    # Pixels on each side of the centre, row by row from the centre down.
    widths = _disk(radius, radius)[radius:].sum(axis=1).astype(int) // 2
    total, inner = 0, 0
    for half_width in np.unique(widths)[::-1]:
        half_height = np.flatnonzero(widths == half_width)[-1]
        bottom, top = radius + half_height + 1, radius - half_height
        band = integral[bottom : bottom + height] - integral[top : top + height]
        ring = band - inner
        right, left = radius + half_width + 1, radius - half_width
        total += ring[:, right : right + width] - ring[:, left : left + width]
        inner = band
    return total.astype(np.float32)


@lru_cache(maxsize=5)
def _corrections(radius: int, sigma: float) -> tuple[tuple[int, np.ndarray], ...]:
    """Return how the weights of the reference's kernel differ from those of a softened disk.

    Returns:
        tuple[tuple[int, ndarray], ...]: Distance of a row from the centre, and its differences.
        The columns have the same.
    """
    kernel = _soft_disk(radius, sigma)
    reach = len(kernel) // 2 + 2
    disk = _disk(radius, reach)
    difference = np.pad(kernel, 2) - cv2.GaussianBlur(
        disk / disk.sum(), (_soft_side(radius),) * 2, sigma
    )

    def rows() -> Iterator[tuple[int, np.ndarray]]:
        for distance in range(radius, reach + 1):
            weights = difference[reach + distance]
            # Smaller ones are left out: all together they are far below one grey level.
            significant = np.flatnonzero(np.abs(weights) > 1e-5 * kernel.max())
            if significant.size:
                yield distance, weights[significant[0] : significant[-1] + 1]

    return tuple(rows())


@lru_cache(maxsize=5)
def _soft_disk(radius: int, sigma: float) -> np.ndarray:
    """Return the kernel of the reference, in float32 as there."""
    # The reference's kernel has at least 8 pixels on each side of its centre.
    disk = _disk(radius, max(radius, 8))
    disk /= disk.sum()
    return cv2.GaussianBlur(disk, (_soft_side(radius),) * 2, sigma)


def _soft_side(radius: int) -> int:
    """Return the side of the Gaussian that softens the disk, as the reference chooses it."""
    return 3 if radius <= 8 else 5


def _disk(radius: int, reach: int) -> np.ndarray:
    """Return 1 inside a disk and 0 outside, float32, with reach pixels on each side."""
    steps = np.arange(-reach, reach + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)


def shuffled_indices(height: int, width: int, reach: int, rng: Rng) -> np.ndarray:
    """Return where each pixel comes from when pixels are copied from random neighbours in turn.

    From the last pixel of an image to the first, apart from its border, each is overwritten by one
    of the (2 reach)^2 around it. Those below and to the right have been overwritten before it. So
    a copy from there is followed to the pixel that it was itself copied from.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        reach (int): Largest distance in rows and columns, up and to the left; one less down and
            to the right.
        rng (RandomState | Generator): Source of the neighbours.

    Returns:
        ndarray: intp, (height * width,), index in the flat image of each pixel's new value.
    """
    inside = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    sources = np.arange(height * width).reshape(height, width)
    size = sources[inside].shape
    sources[inside] += _moves(*size, width, reach, rng)
    sources = sources.ravel()

    copied_from = sources.copy()
    # Only copies from later pixels go on: those were overwritten before. Each round follows all
    # of them by one step, until each ends at a pixel that was still the original.
    unfinished = np.flatnonzero(sources > np.arange(sources.size))
    while unfinished.size:
        ends = sources[unfinished]
        further = copied_from[ends]
        sources[unfinished] = further
        unfinished = unfinished[further > ends]
    return sources


def _moves(rows: int, columns: int, stride: int, reach: int, rng: Rng) -> np.ndarray:
    """Sample the neighbours, as distances in a flat image whose rows are stride pixels long."""
    if isinstance(rng, np.random.RandomState):
        # The reference draws dx, dy, and begins with the last pixel.
        moves = rng.randint(-reach, reach, (rows, columns, 2), dtype=np.int32)[::-1, ::-1]
        return moves[..., 1] * stride + moves[..., 0]
    offsets = np.arange(-reach, reach)
    moves = (offsets[:, None] * stride + offsets).ravel()
    # At most (2 * 4)^2 = 64 neighbours, so that uint8 is enough.
    return moves.take(rng.integers(0, moves.size, (rows, columns), dtype=np.uint8))
