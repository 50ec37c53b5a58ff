# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Callable

from .blur import motion_blur
from .digital import contrast, jpeg_compression
from .noise import gaussian_noise
from .weather import fog

_FUNCTIONS: dict[str, tuple[Callable, ...]] = {
    'noise': (gaussian_noise,),
    'blur': (motion_blur,),
    'weather': (fog,),
    'digital': (contrast, jpeg_compression),
}

#: Group name to the names of its corruptions, in the order of the benchmark.
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(function.__name__ for function in functions)
    for group, functions in _FUNCTIONS.items()
}

#: Corruption name to its function ``(image, severity, rng) -> image``.
CORRUPTIONS: dict[str, Callable] = {
    function.__name__: function for functions in _FUNCTIONS.values() for function in functions
}
