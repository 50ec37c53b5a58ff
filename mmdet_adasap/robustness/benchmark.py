# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Constants that command lines name as well, in plain Python: ``--help`` waits for no library."""

SEVERITIES = (1, 2, 3, 4, 5)
"""From light to heavy. mPC is over all of them (arXiv:1903.12261 and arXiv:1907.07484)."""

MODES = ('fast', 'exact')
"""'exact' corrupts with the random draws of the published code."""

IMAGENET_V2_FOLDERS = {
    'matched-frequency': 'imagenetv2-matched-frequency-format-val',
    'threshold-0.7': 'imagenetv2-threshold0.7-format-val',
    'top-images': 'imagenetv2-top-images-format-val',
}
"""Variants of ImageNet-V2 (arXiv:1902.10811) to the folders that their archives unpack to."""

IMAGENET_V2_DEFAULT = 'matched-frequency'
"""The variant that results are usually given for."""
