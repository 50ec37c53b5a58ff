# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Callable

from .blur import defocus_blur, glass_blur, motion_blur, zoom_blur
from .digital import contrast, elastic_transform, jpeg_compression, pixelate
from .extras import gaussian_blur, saturate, spatter, speckle_noise
from .noise import gaussian_noise, impulse_noise, shot_noise
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

#: Names of those that the benchmark keeps for validation: never part of mPC.
EXTRAS: tuple[str, ...] = tuple(function.__name__ for function in _EXTRA_FUNCTIONS)

#: Corruption name to its function ``(image, severity, rng) -> image``; the extras come last.
CORRUPTIONS: dict[str, Callable] = {
    function.__name__: function
    for functions in (*_FUNCTIONS.values(), _EXTRA_FUNCTIONS)
    for function in functions
}
