# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Weather corruptions of ImageNet-C (arXiv:1903.12261), as in Pascal-C (arXiv:1907.07484)."""

import math
from functools import lru_cache

import cv2
import numpy as np

from ...distributions import package_folder
from .filters import apply_motion_kernel, central_slice, enlarge
from .numerics import (
    Rng,
    hsv_to_rgb,
    integer,
    rgb_to_hsv,
    row_blocks,
    standard_normal,
    symmetric_uniform,
    to_uint8,
)

#: In the order in which the benchmark numbers them.
FROST_PHOTOS = (
    *('frost1.png', 'frost2.png', 'frost3.png'),
    *('frost4.jpg', 'frost5.jpg', 'frost6.jpg'),
)


def snow(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Whiten the image and let flakes fall over it, from two opposite sides.

    ========= ==== ==== ==== ==== ====
    severity   1    2    3    4    5
    mean      0.1  0.2  0.55 0.55 0.55
    std       0.3  0.3  0.3  0.3  0.3
    size       3    2    4   4.5  2.5
    threshold 0.5  0.5  0.9  0.85 0.85
    radius    10   12   12   12   12
    sigma      4    4    8    8   12
    kept      0.8  0.7  0.7  0.65 0.55
    ========= ==== ==== ==== ==== ====

    Flakes are N(mean, std^2) where it is above the threshold, enlarged by size and blurred along
    a direction from U(-135, -45) degrees (radius and sigma as in ``motion_blur``). Of the image
    the share kept stays, the rest is replaced by the larger of it and 1.5 grey + 0.5.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of flakes and direction.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    settings = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )
    mean, std, size, threshold, radius, sigma, kept = settings[severity - 1]
    height, width = image.shape[:2]
    flakes = _flakes(height, width, size, rng)
    flakes *= std
    flakes += mean
    flakes = enlarge(flakes, size)
    flakes[flakes < threshold] = 0
    flakes = np.minimum(flakes, 1).astype(np.float32)
    flakes = apply_motion_kernel(flakes, radius, sigma, rng.uniform(-135, -45))
    flakes = cv2.convertScaleAbs(flakes[:height, :width], alpha=255)

    flakes = cv2.merge([flakes] * 3)
    opposite = cv2.rotate(flakes, cv2.ROTATE_180)
    snowy = np.empty_like(image)
    for rows in row_blocks(height, width):
        snowy[rows] = _snow_over(image[rows], kept, flakes[rows], opposite[rows])
    return snowy


def _snow_over(
    image: np.ndarray, kept: float, flakes: np.ndarray, opposite: np.ndarray
) -> np.ndarray:
    """Whiten some rows of an image and add the flakes from both sides."""
    # In the reference's order and precision: on grey images sums are often whole levels, and then
    # rounding errors decide. 1.5 and 0.5 are the reference's.
    old = image.astype(np.float32) / np.float32(255)
    grey = cv2.cvtColor(old, cv2.COLOR_RGB2GRAY) * np.float32(1.5) + np.float32(0.5)
    white = cv2.max(old, cv2.merge([grey] * 3))
    old *= np.float32(kept)
    white *= np.float32(1 - kept)
    old += white
    snowy = old + flakes / 255.0
    snowy += opposite / 255.0
    snowy *= 255
    return to_uint8(snowy)


def _flakes(height: int, width: int, size: float, rng: Rng) -> np.ndarray:
    """Sample N(0, 1) for the central part of the image, which the enlargement leaves visible."""
    centre = central_slice(height, size), central_slice(width, size)
    if isinstance(rng, np.random.RandomState):
        # The reference draws for the whole image, so the generator has to move on as far.
        return np.ascontiguousarray(standard_normal(rng, (height, width))[centre])
    return standard_normal(rng, tuple(part.stop - part.start for part in centre))


def frost(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Add a random part of one of six photographs of frost: clip(a x + b frost).

    ======== === === === ==== ====
    severity  1   2   3   4    5
    a        1.0 0.8 0.7 0.65 0.6
    b        0.4 0.6 0.7 0.7  0.75
    ======== === === === ==== ====

    A photograph that is smaller than the image is enlarged to its size, and each by another 1.1.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of photograph and part.

    Returns:
        ndarray: uint8, (H, W, 3).

    Raises:
        FileNotFoundError: If no installed package has the photographs.
    """
    image_share, frost_share = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[
        severity - 1
    ]
    height, width = image.shape[:2]
    texture = frost_texture(integer(rng, 0, len(FROST_PHOTOS)), height, width)
    top = integer(rng, 0, texture.shape[0] - height)
    left = integer(rng, 0, texture.shape[1] - width)
    texture = texture[top : top + height, left : left + width]
    # Both are 8-bit, so a table of 256 x 256 has every result; frost chooses its row.
    levels = np.arange(256)
    table = to_uint8(image_share * levels + frost_share * levels[:, None])
    frosted = np.empty_like(image)
    for rows in row_blocks(height, width):
        index = texture[rows].astype(np.intp)
        index <<= 8
        index |= image[rows]
        frosted[rows] = table.take(index)
    return frosted


def check_frost_photos() -> None:
    """Raise FileNotFoundError if the photographs for frost are missing, before a long run.

    Raises:
        FileNotFoundError: If no installed package has the photographs.
    """
    for number in range(len(FROST_PHOTOS)):
        _photo(number)


def frost_texture(number: int, height: int, width: int) -> np.ndarray:
    """Return one of the photographs of frost, a tenth larger than the image needs at least.

    Args:
        number (int): Which of ``FROST_PHOTOS``, from 0.
        height (int): Height of the image.
        width (int): Width of the image.

    Returns:
        ndarray: uint8, (H', W', 3), RGB, with H' > height and W' > width. Not to be written to.

    Raises:
        FileNotFoundError: If no installed package has the photograph.
    """
    photo = _photo(number)
    # The tenth is the reference's: it leaves room for a random position.
    factor = max(height / photo.shape[0], width / photo.shape[1], 1) * 1.1
    return _enlarged_photo(number, *(math.ceil(side * factor) for side in photo.shape[:2]))


# Most images of a set have one of a few sizes; 16 keep them without much memory in each worker.
@lru_cache(maxsize=16)
def _enlarged_photo(number: int, height: int, width: int) -> np.ndarray:
    return cv2.resize(_photo(number), (width, height), interpolation=cv2.INTER_CUBIC)


_REMEDY = (
    'install one that has them with `pip install --no-deps imagecorruptions-imaug`, or leave out '
    'frost'
)


@lru_cache(maxsize=len(FROST_PHOTOS))
def _photo(number: int) -> np.ndarray:
    # Found, not imported: the import alone needs scikit-image, scipy and numba.
    folder = package_folder('imagecorruptions')
    if folder is None:
        raise FileNotFoundError(
            f'frost needs photographs that the package imagecorruptions carries: {_REMEDY}'
        )
    path = folder / 'frost' / FROST_PHOTOS[number]
    photo = cv2.imread(str(path)) if path.is_file() else None
    if photo is None:
        raise FileNotFoundError(
            f'frost needs {str(path)!r}, which is no readable image: {_REMEDY}'
        )
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def fog(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Add a cloud of plasma and scale so that the brightest level stays where it was.

    ========= === === === === ===
    severity   1   2   3   4   5
    thickness 1.5 2.0 2.5 2.5 3.0
    decay     2.0 2.0 1.7 1.5 1.4
    ========= === === === === ===

    (x + t p) m / (m + t), with t the thickness, p the cloud in 0 to 1 and m the largest value of
    the image, x and m in units of the full range. A smaller decay gives a rougher cloud.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Source of the cloud.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    thickness, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = image.shape[:2]
    # The next power of two, which the diamond-square algorithm needs.
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = plasma(side, decay, rng)[:height, :width]
    cloud *= np.float32(255 * thickness)
    largest = float(image.max()) / 255
    foggy = np.empty_like(image)
    for rows in row_blocks(height, width):
        mixture = cv2.merge([cloud[rows]] * 3)
        mixture += image[rows]
        mixture *= np.float32(largest / (largest + thickness))
        foggy[rows] = to_uint8(mixture)
    return foggy


def plasma(side: int, decay: float, rng: Rng) -> np.ndarray:
    """Generate a cloud by the diamond-square algorithm on a torus.

    Every level halves the grid: first the centre of each square gets the mean of its four
    corners, then the middle of each edge the mean of its four neighbours, each plus
    a U(-a, a) with a = 100 / decay^level.

    Args:
        side (int): Side of the map, a power of two.
        decay (float): How much the amplitude a shrinks from level to level.
        rng (RandomState | Generator): Source of the heights.

    Returns:
        ndarray: float32, (side, side), smallest value 0, largest 1.
    """
    heights = np.zeros((side, side), dtype=np.float32)
    # 100 as in the reference. The result is scaled to 0 to 1, so only rounding depends on it.
    amplitude, step = 100.0, side
    while step > 1:
        half = step // 2

        def noisy_mean(sums: np.ndarray, amplitude: float = amplitude) -> np.ndarray:
            # The reference multiplies a U(-a, a) by a once more.
            return sums / 4 + amplitude * symmetric_uniform(rng, amplitude, sums.shape)

        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = noisy_mean(pairs + np.roll(pairs, -1, axis=1))

        centres = heights[half::step, half::step]
        across = corners + np.roll(corners, -1, axis=1)
        heights[::step, half::step] = noisy_mean(centres + np.roll(centres, 1, axis=0) + across)
        down = corners + np.roll(corners, -1, axis=0)
        heights[half::step, ::step] = noisy_mean(centres + np.roll(centres, 1, axis=1) + down)

        step, amplitude = half, amplitude / decay
    heights -= heights.min()
    heights /= heights.max()
    return heights


def brightness(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    """Add to the value of HSV (the largest of the three channels), keeping hue and saturation.

    ======== === === === === ===
    severity  1   2   3   4   5
    added    0.1 0.2 0.3 0.4 0.5
    ======== === === === === ===

    In units of the full range (255 levels), at which the value ends.

    Args:
        image (ndarray): uint8, (H, W, 3).
        severity (int): 1 to 5.
        rng (RandomState | Generator): Not used.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    return add_value(image, (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1])


def add_value(image: np.ndarray, added: float) -> np.ndarray:
    """Add to the value of HSV, keeping hue and saturation.

    All three channels grow by the same factor, which depends on the largest of them. So a table
    over (largest, channel) has the result, except where rounding errors decide.

    Args:
        image (ndarray): uint8, (H, W, 3).
        added (float): What is added, in units of the full range.

    Returns:
        ndarray: uint8, (H, W, 3).
    """
    height, width = image.shape[:2]
    table = _value_table(added)
    bright = np.empty_like(image)
    undecided = []
    for rows in row_blocks(height, width):
        red, green, blue = cv2.split(image[rows])
        index = cv2.merge([cv2.max(cv2.max(red, green), blue)] * 3).astype(np.intp)
        index <<= 8
        index |= image[rows]
        entries = table.take(index)
        # Three channels a pixel: // 3 turns the place of a channel into the pixel's.
        undecided.append(np.flatnonzero(entries & _UNDECIDED) // 3 + rows.start * width)
        bright[rows] = entries
    undecided = np.concatenate(undecided)
    hue, saturation, value = rgb_to_hsv(image.reshape(-1, 3).take(undecided, axis=0))
    value = np.minimum(value + added, 1)
    bright.reshape(-1, 3)[undecided] = hsv_to_rgb(hue, saturation, value)
    return bright


# The bit above those of a uint8, which the cast back to uint8 drops.
_UNDECIDED = 256


@lru_cache(maxsize=5)
def _value_table(added: float) -> np.ndarray:
    """Return a channel's new level for each largest level of the three and each own level.

    Entries are marked as undecided where the exact result is a whole level: its rounding errors
    depend on all three channels.

    Returns:
        ndarray: uint16, (256 * 256,), 256 entries for each largest level.
    """
    levels = np.arange(256)
    value = levels / 255.0
    brighter = np.clip(value + added, 0, 1)
    # Black has no hue, so that all three get the largest.
    factor = np.divide(brighter, value, out=np.zeros(256), where=value > 0)
    scaled = np.minimum(factor[:, None] * levels, 255)
    # Far above errors of float64, and below the distance of any other result from a whole level.
    undecided = np.abs(scaled - np.rint(scaled)) < 1e-9
    undecided &= (levels > 0) & (levels < levels[:, None])
    table = scaled.astype(np.uint16) | np.where(undecided, _UNDECIDED, 0).astype(np.uint16)
    np.fill_diagonal(table, (brighter * 255).astype(np.uint16))
    return table.ravel()
