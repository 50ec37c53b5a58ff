# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Published figures that mCE refers to."""

from collections.abc import Iterable, Mapping

ALEXNET = 'AlexNet (published)'
"""What results call the reference of ImageNet-C. No model may be called so."""
_CLEAN_ERROR = 43.48
# Top-1 error on ImageNet-C in percent, severities 1 to 5, as in the code of arXiv:1903.12261.
_ERRORS = {
    'gaussian_noise': (69.528, 82.542, 93.554, 98.138, 99.452),
    'shot_noise': (71.224, 85.108, 93.574, 98.182, 99.146),
    'impulse_noise': (78.374, 89.808, 94.870, 98.720, 99.548),
    'defocus_blur': (65.624, 73.202, 85.036, 91.364, 94.714),
    'glass_blur': (64.308, 75.054, 88.806, 91.622, 93.344),
    'motion_blur': (58.430, 70.048, 82.108, 89.750, 92.638),
    'zoom_blur': (70.008, 76.992, 80.784, 84.198, 87.198),
    'snow': (71.726, 88.392, 86.468, 91.870, 94.952),
    'frost': (61.390, 79.734, 88.790, 89.942, 93.430),
    'fog': (67.474, 76.050, 84.378, 87.260, 94.500),
    'brightness': (45.140, 48.502, 54.048, 62.166, 72.440),
    'contrast': (64.548, 76.150, 88.874, 97.760, 99.270),
    'elastic_transform': (52.596, 70.116, 55.686, 64.076, 80.554),
    'pixelate': (52.218, 54.620, 73.728, 87.092, 91.262),
    'jpeg_compression': (51.002, 54.718, 57.294, 65.458, 74.778),
}


def alexnet(cells: Mapping[str, Iterable[int]]) -> tuple[dict[str, dict[int, float]], float]:
    """AlexNet's accuracy on ImageNet-C, in the form that ``summarize`` takes a reference in.

    Args:
        cells (Mapping): The severities that are there of each corruption; those that are not
            among the benchmark's are left out.

    Returns:
        tuple: P as fractions, ``{corruption: {severity: P}}``, and clean P.
    """
    table = {
        name: {s: (100 - _ERRORS[name][s - 1]) / 100 for s in severities}
        for name, severities in cells.items()
        if name in _ERRORS
    }
    return table, (100 - _CLEAN_ERROR) / 100
