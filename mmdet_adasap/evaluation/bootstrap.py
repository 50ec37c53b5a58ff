# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The bootstrap over images: how far a figure depends on which images were taken."""

import numpy as np


def image_weights(images: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each resample, with replacement.

    Every cell and every model uses the same draws, so that means over cells and differences
    between models can be resampled as well.

    Args:
        images (int): Number of images N, 1 or more.
        resamples (int): Number of resamples R.
        seed (int): Seed of the draws.

    Returns:
        ndarray: float32, (R, N), whole numbers with the sum N in each row.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float32)


def interval(values: np.ndarray, coverage: float = 0.95) -> list[float]:
    """The percentile interval of a bootstrap (Efron and Tibshirani 1993, chapter 13).

    Args:
        values (ndarray): The figure in each resample, (R,).
        coverage (float): Its nominal coverage. Defaults to 0.95.

    Returns:
        list[float]: Lower and upper end.
    """
    tail = 50 * (1 - coverage)
    return [float(end) for end in np.percentile(values, [tail, 100 - tail])]
