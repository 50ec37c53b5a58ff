# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The bootstrap over images: how far a figure depends on which images were taken."""

import zlib
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

# Half the width of a 95 % interval of a normal distribution, in standard deviations: 1.96.
Z = NormalDist().inv_cdf(0.975)


def image_weights(images: int, resamples: int, seed: int | Sequence[int]) -> np.ndarray:
    """Resample images with replacement, and return how often each is in each resample.

    Every condition and every model uses the same resamples, so that means over conditions and
    differences between models can be resampled as well.

    Args:
        images (int): Number of images N, 1 or more.
        resamples (int): Number of resamples R.
        seed (int | Sequence[int]): Seed of the resampling.

    Returns:
        ndarray: float32, (R, N), whole numbers with the sum N in each row.
    """
    # float32 holds whole numbers to 2^24 exactly, and halves the memory of (R, N).
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float32)


def interval(
    values: np.ndarray, estimate: float, limits: tuple[float, float] = (-np.inf, np.inf)
) -> list[float]:
    """Return the 95 % interval ``estimate +- 1.96 standard errors`` of a bootstrap.

    Percentiles of the values would be wrong here. Average precision is higher on resamples, in
    which images come twice, than on the images themselves, and with few images the percentiles
    may lie above the estimate. The standard error does not suffer from that (Efron and
    Tibshirani 1993, section 12.2).

    Args:
        values (ndarray): The figure in each of R resamples, (R,).
        estimate (float): The figure itself.
        limits (tuple[float, float]): Where the interval is cut off: what the figure can be.
            Defaults to anything.

    Returns:
        list[float]: Lower and upper end.
    """
    # One resample has no spread: the interval is everything that the figure can be.
    reach = Z * float(np.std(values, ddof=1)) if len(values) > 1 else np.inf
    return [float(np.clip(end, *limits)) for end in (estimate - reach, estimate + reach)]


def paired_difference(
    value: float,
    other: float,
    resampled: np.ndarray | None,
    other_resampled: np.ndarray | None,
) -> dict[str, float | list[float] | None]:
    """Return the difference of two figures of the same images, as results.json has it.

    Args:
        value (float): The figure.
        other (float): What is subtracted.
        resampled (ndarray | None): The figure in each resample, (R,), if it is known.
        other_resampled (ndarray | None): The other in the same resamples.

    Returns:
        dict: 'value' and 'ci95', which is None unless both were resampled.
    """
    difference = value - other
    if resampled is None or other_resampled is None:
        return {'value': difference, 'ci95': None}
    return {'value': difference, 'ci95': interval(resampled - other_resampled, difference)}


def seed_of_set(seed: int, name: str) -> list[int]:
    """Return the seed for resampling another test set, whose images are independent of the first.

    Args:
        seed (int): Seed of the run.
        name (str): What the set is called.
    """
    return [seed, zlib.crc32(name.encode())]
