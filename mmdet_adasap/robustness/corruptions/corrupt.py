# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The public function of the corruptions, their names and groups, and the seed of each image."""

import hashlib
import json
from collections.abc import Callable
from numbers import Integral

import numpy as np

from ...errors import did_you_mean
from ..benchmark import MODES, SEVERITIES
from .blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from .digital import contrast, elastic_transform, jpeg_compression, pixelate
from .extra import gaussian_blur, saturate, spatter, speckle_noise
from .noise import gaussian_noise, impulse_noise, shot_noise
from .numerics import Rng
from .weather import brightness, fog, frost, snow

_FUNCTIONS: dict[str, tuple[Callable, ...]] = {
    'noise': (gaussian_noise, shot_noise, impulse_noise),
    'blur': (defocus_blur, glass_blur, motion_blur, zoom_blur),
    'weather': (snow, frost, fog, brightness),
    'digital': (contrast, elastic_transform, pixelate, jpeg_compression),
}
_EXTRA_FUNCTIONS: tuple[Callable, ...] = (speckle_noise, gaussian_blur, spatter, saturate)

#: Group name to the names of its corruptions, in the order of the benchmark; mPC is over these.
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(function.__name__ for function in functions)
    for group, functions in _FUNCTIONS.items()
}

#: Names of all corruptions of the benchmark, in its order.
BENCHMARK: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)

#: Names of those that the benchmark keeps for validation: never part of mPC.
EXTRAS: tuple[str, ...] = tuple(function.__name__ for function in _EXTRA_FUNCTIONS)

#: Corruption name to its function ``(image, severity, rng) -> image``; the extras come last. It is
#: closed: what a user adds to it is refused.
CORRUPTIONS: dict[str, Callable] = {
    function.__name__: function
    for functions in (*_FUNCTIONS.values(), _EXTRA_FUNCTIONS)
    for function in functions
}

#: Smallest height and width, as in the reference.
MIN_SIDE = 32


def corrupt(
    image: np.ndarray,
    name: str,
    severity: int,
    rng: int | Rng = 0,
    mode: str = 'fast',
) -> np.ndarray:
    """Corrupt an image as ImageNet-C and Pascal-C do.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB, at least 32 x 32. Left as it is.
        name (str): One of ``CORRUPTIONS``.
        severity (int): 1 (light) to 5 (heavy).
        rng (int | Generator | RandomState): Seed, or the generator to draw from: a Generator in
            fast mode, a RandomState in exact mode. numpy's global one is never used.
            Defaults to 0.
        mode (str): 'fast' samples from SFC64. 'exact' repeats the random numbers that the
            published code (imagecorruptions-imaug 1.1.5) draws after ``np.random.seed(rng)``: at
            most one level apart on a few pixels. Both have the same distribution. Defaults to
            'fast'.

    Returns:
        ndarray: uint8, (H, W, 3).

    Raises:
        TypeError: If the image is no uint8 array, or the severity or rng is of another type.
        ValueError: If the shape, the name, the severity or the mode is not one of those above.
    """
    check_condition(name, severity)
    check_image(image)
    rng = _as_generator(rng, mode)
    return CORRUPTIONS[name](np.ascontiguousarray(image), int(severity), rng)


def check_condition(name: str, severity: int) -> None:
    """Raise an error if there is no such corruption or severity.

    Args:
        name (str): Name of the corruption.
        severity (int): Its severity.

    Raises:
        TypeError: If the name is no str or the severity no int.
        ValueError: If there is no such corruption or severity.
    """
    if not isinstance(name, str):
        raise TypeError(f'corruption={name!r} must be a str, one of {", ".join(CORRUPTIONS)}')
    known = (*BENCHMARK, *EXTRAS)
    if name in CORRUPTIONS and name not in known:
        # Other processes, a report and --compare would not know it.
        raise ValueError(
            f'corruption={name!r} was added to CORRUPTIONS, which is closed, so that a name means '
            f'the same in all results: test images that you have corrupted yourself as one of '
            f'the shifted_sets of evaluate_robustness, or corrupt them in a transform of your own'
        )
    if name not in known:
        hint = did_you_mean(name, known) or f'; use one of {", ".join(known)}'
        raise ValueError(f'corruption={name!r} is unknown{hint}')
    if isinstance(severity, bool) or not isinstance(severity, Integral):
        raise TypeError(f'severity={severity!r} must be an int from 1 to 5')
    if severity not in SEVERITIES:
        raise ValueError(f'severity={severity} must be from 1 (light) to 5 (heavy)')


def check_mode(mode: str) -> None:
    """Raise an error if the mode is not 'fast' or 'exact'.

    Raises:
        ValueError: If it is another one.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is unknown: use 'fast' or 'exact'")


def check_image(image: np.ndarray) -> None:
    """Raise an error if an image cannot be corrupted.

    Raises:
        TypeError: If the image is no uint8 array.
        ValueError: If it is grey or smaller than 32 x 32.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise TypeError(
            f'the image is {kind}, but corruptions need a uint8 array with values 0 to 255: '
            "load it with color_type='color', which gives 8 bits, and corrupt before anything "
            'that scales or converts the pixels'
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'the image has shape {image.shape}, but corruptions need (height, width, 3): '
            "load it in colour (color_type='color'), which also leaves transparency out"
        )
    if min(image.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f'the image is {image.shape[1]} x {image.shape[0]} pixels, but corruptions are '
            f'defined from {MIN_SIDE} x {MIN_SIDE} on: leave it out or enlarge it'
        )


def _as_generator(rng: int | Rng, mode: str) -> Rng:
    """Return the generator for a seed, or the given one if its type is that of the mode."""
    check_mode(mode)
    kind = np.random.RandomState if mode == 'exact' else np.random.Generator
    if isinstance(rng, kind):
        return rng
    if isinstance(rng, bool) or not isinstance(rng, Integral):
        raise TypeError(
            f'rng={rng!r} does not go with mode={mode!r}: give an int or a numpy {kind.__name__}'
        )
    if rng < 0 or (mode == 'exact' and rng >= 2**32):
        limit = 'from 0 to 2**32 - 1' if mode == 'exact' else '0 or more'
        raise ValueError(f'rng={rng} cannot seed mode={mode!r}: give an int {limit}')
    if mode == 'exact':
        return np.random.RandomState(int(rng))
    # The fastest of numpy's bit generators; most corruptions sample for every pixel.
    return np.random.Generator(np.random.SFC64(int(rng)))


def corruption_seed(
    seed: int, image_id: str | int, corruption: str, severity: int, mode: str = 'fast'
) -> int:
    """Derive the seed of one corrupted image from its name, corruption and severity alone.

    So workers, batch size, order and what was corrupted before cannot change a pixel.

    Args:
        seed (int): Seed of the whole benchmark.
        image_id (str | int): Id of the image; 7 and '7' are the same image.
        corruption (str): Name of the corruption.
        severity (int): 1 to 5.
        mode (str): What the seed is for, 'fast' or 'exact'. Defaults to 'fast'.

    Returns:
        int: 128 bits of blake2b over the first four; 32 of them for a RandomState, which takes no
        more.
    """
    key = json.dumps([int(seed), str(image_id), corruption, int(severity)])
    # A RandomState takes 32 bits. 128 make it unlikely that two images of a set share a seed.
    size = 4 if mode == 'exact' else 16
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=size).digest(), 'little')
