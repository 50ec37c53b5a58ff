# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The bootstrap over images: how far a figure depends on which images were taken."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

Z = NormalDist().inv_cdf(0.975)


def image_weights(images: int, resamples: int, seed: int | Sequence[int]) -> np.ndarray:
    """How often each image is drawn in each resample, with replacement.

    Every cell and every model uses the same draws, so that means over cells and differences
    between models can be resampled as well.

    Args:
        images (int): Number of images N, 1 or more.
        resamples (int): Number of resamples R.
        seed (int | Sequence[int]): Seed of the draws.

    Returns:
        ndarray: float32, (R, N), whole numbers with the sum N in each row.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float32)


def interval(
    values: np.ndarray, estimate: float, limits: tuple[float, float] = (-np.inf, np.inf)
) -> list[float]:
    """The 95 % interval ``estimate +- 1.96 standard errors`` of a bootstrap.

    Not the percentiles of the values: average precision is higher on resamples, in which images
    come twice, than on the images themselves, and with few images the percentiles may lie
    above the estimate. The standard error does not suffer from that (Efron and Tibshirani 1993,
    section 12.2).

    Args:
        values (ndarray): The figure in each of R resamples, (R,).
        estimate (float): The figure itself.
        limits (tuple[float, float]): Where the interval is cut off: what the figure can be.
            Defaults to anything.

    Returns:
        list[float]: Lower and upper end.
    """
    reach = Z * float(np.std(values, ddof=1)) if len(values) > 1 else np.inf
    return [float(np.clip(end, *limits)) for end in (estimate - reach, estimate + reach)]
