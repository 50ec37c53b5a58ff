# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import numpy as np

from .draws import Rng


def shuffled_sources(height: int, width: int, reach: int, rng: Rng) -> np.ndarray:
    """Say where each pixel comes from when pixels are copied from random neighbours, one by one.

    From the last pixel of an image to the first, apart from its border, each is overwritten by one
    of the (2 reach)^2 around it. Below and to the right of it these have been overwritten before,
    so that such a copy is followed on to where it came from.

    Args:
        height (int): Height of the image.
        width (int): Width of the image.
        reach (int): Largest distance in rows and columns, up and to the left; one less down and
            to the right.
        rng (RandomState | Generator): Where the neighbours come from.

    Returns:
        ndarray: intp, (height * width,), place of each pixel's value in the flat image.
    """
    inside = (slice(reach + 1, height - reach + 1), slice(reach + 1, width - reach + 1))
    sources = np.arange(height * width).reshape(height, width)
    size = sources[inside].shape
    sources[inside] += _moves(*size, width, reach, rng)
    sources = sources.ravel()

    copied_from = sources.copy()
    open_ends = np.flatnonzero(sources > np.arange(sources.size))
    while open_ends.size:
        ends = sources[open_ends]
        further = copied_from[ends]
        sources[open_ends] = further
        open_ends = open_ends[further > ends]
    return sources


def _moves(rows: int, columns: int, stride: int, reach: int, rng: Rng) -> np.ndarray:
    """Draw the neighbours, as distances in an image whose rows are stride pixels long."""
    if isinstance(rng, np.random.RandomState):
        # The reference draws dx, dy, and from the last pixel on.
        draws = rng.randint(-reach, reach, (rows, columns, 2), dtype=np.int32)[::-1, ::-1]
        return draws[..., 1] * stride + draws[..., 0]
    one_way = np.arange(-reach, reach)
    moves = (one_way[:, None] * stride + one_way).ravel()
    return moves.take(rng.integers(0, moves.size, (rows, columns), dtype=np.uint8))
