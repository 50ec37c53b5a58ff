# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math

import cv2
import numpy as np


def middle(length: int, factor: float) -> slice:
    """Say which part of a side fills the whole of it once it is enlarged.

    Args:
        length (int): Length of the side in pixels.
        factor (float): Enlargement, 1 or more.

    Returns:
        slice: The part, in the middle.
    """
    part = math.ceil(length / float(factor))
    start = (length - part) // 2
    return slice(start, start + part)


def enlarge(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge an image by linear interpolation, so that first and last pixels stay such.

    OpenCV's own resizing lets the borders of pixels stay where they are instead, and its warping
    rounds places to 1/32 pixel.

    Args:
        image (ndarray): float32, (H, W) or (H, W, 3), at least 2 x 2.
        factor (float): Enlargement, 1 or more.

    Returns:
        ndarray: float32, each side ``round(factor * side)``.
    """
    return cv2.transpose(_stretch(cv2.transpose(_stretch(image, factor)), factor))


def enlarged_transpose(image: np.ndarray, factor: float) -> np.ndarray:
    """Do as :func:`enlarge` does, but leave rows and columns exchanged."""
    return _stretch(cv2.transpose(_stretch(image, factor)), factor)


def _stretch(image: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the height alone."""
    last = len(image) - 1
    size = round(len(image) * factor)
    places = np.arange(size) * (last / (size - 1))
    above = np.minimum(places.astype(np.intp), last - 1)
    below_share = (places - above).astype(np.float32)
    rows = image.reshape(len(image), -1)
    stretched = rows.take(above, axis=0)
    step = rows.take(above + 1, axis=0)
    step -= stretched
    step *= below_share[:, None]
    stretched += step
    # Where rounding puts the last place beyond the last row, the reference finds 0.
    stretched[places > last] = 0
    return stretched.reshape(size, *image.shape[1:])
