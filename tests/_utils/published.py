# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The corruptions as published, seeded: imagecorruptions-imaug 1.1.5, and what of it cannot be."""

import warnings

import numpy as np
import pytest


def published(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """Corrupt an image as the reference does after ``np.random.seed(seed)``."""
    if name == 'glass_blur':
        return glass_blur(image, severity, np.random.RandomState(seed))
    if name == 'impulse_noise':
        return impulse_noise(image, severity, np.random.RandomState(seed))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        imagecorruptions = pytest.importorskip('imagecorruptions')
        state = np.random.get_state()
        np.random.seed(seed)
        try:
            return imagecorruptions.corrupt(image, severity=severity, corruption_name=name)
        finally:
            np.random.set_state(state)


def glass_blur(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """What the reference defines, whose compiled loop draws from numba's generator instead."""
    gaussian = pytest.importorskip('skimage.filters').gaussian
    sigmas, reaches, rounds = (0.7, 0.9, 1, 1.1, 1.5), (1, 2, 2, 3, 4), (2, 1, 3, 2, 2)
    sigma, reach = sigmas[severity - 1], reaches[severity - 1]
    x = np.uint8(gaussian(image / 255.0, sigma=sigma, channel_axis=-1) * 255)
    height, width = image.shape[:2]
    for _ in range(rounds[severity - 1]):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = rng.randint(-reach, reach, size=2)
                # Both sides are views, so this "swap" copies.
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    x = gaussian(x / 255.0, sigma=sigma, channel_axis=-1)
    return np.uint8(np.clip(x, 0, 1) * 255)


def impulse_noise(image: np.ndarray, severity: int, rng: np.random.RandomState) -> np.ndarray:
    """scikit-image's, with the same generator; the reference lets it take an unseeded one."""
    random_noise = pytest.importorskip('skimage.util').random_noise
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    same = np.random.Generator(rng._bit_generator)
    x = random_noise(image / 255.0, 's&p', rng=same, amount=amount)
    return np.uint8(np.clip(x, 0, 1) * 255)
