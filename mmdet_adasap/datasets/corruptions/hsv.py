# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""HSV with the rounding errors of scikit-image, which the reference computes it with.

Where the result is a whole level but for these, they decide whether cutting off the fraction
loses a level, and each of saturation, value and hue has its own.
"""

import numpy as np

# Which of (v, t, p, q) each channel is in each sixth of the hues.
_RED, _GREEN, _BLUE = np.array(
    [[0, 3, 2, 2, 1, 0], [1, 0, 0, 3, 2, 2], [2, 2, 1, 0, 0, 3]], dtype=np.uint8
)


def rgb_to_hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Convert 8-bit pixels.

    Args:
        pixels (ndarray): uint8, (N, 3), RGB.

    Returns:
        tuple[ndarray, ndarray, ndarray]: Hue, saturation and value, 0 to 1, float64, (N,) each.
    """
    red, green, blue = np.ascontiguousarray(pixels.T) / 255.0
    value = np.maximum(np.maximum(red, green), blue)
    spread = value - np.minimum(np.minimum(red, green), blue)
    with np.errstate(invalid='ignore', divide='ignore'):
        saturation = spread / value
        hue = np.where(
            blue == value,
            4.0 + (red - green) / spread,
            np.where(green == value, 2.0 + (blue - red) / spread, (green - blue) / spread),
        )
    hue /= 6.0
    hue -= np.floor(hue)
    grey = spread == 0
    hue[grey] = 0
    saturation[grey] = 0
    return hue, saturation, value


def hsv_to_levels(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Convert back, and cut off the fractions of levels.

    Args:
        hue (ndarray): float64, (N,).
        saturation (ndarray): float64, (N,).
        value (ndarray): float64, (N,).

    Returns:
        ndarray: uint8, (N, 3), RGB.
    """
    sixth = hue * 6
    part = np.floor(sixth)
    sixth -= part
    choice = part.astype(np.intp) % 6
    components = [
        value,
        value * (1 - (1 - sixth) * saturation),
        value * (1 - saturation),
        value * (1 - sixth * saturation),
    ]
    levels = [(np.clip(component, 0, 1) * 255).astype(np.uint8) for component in components]
    return np.stack(
        [np.choose(channel.take(choice), levels) for channel in (_RED, _GREEN, _BLUE)], axis=-1
    )
