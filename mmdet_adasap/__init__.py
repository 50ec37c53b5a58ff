# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""AdaSAP for MMDetection: adaptive sharpness-aware pruning, arXiv:2306.14306.

Importing the package registers its hooks, optimizer wrappers, datasets and models, so a config
needs only ``custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)``.
"""

import sys

from .registration import register_all
from .version import __version__

# `python -m mmdet_adasap.env` has to work where mmdet is broken and to answer `--tool` at once,
# so it does not wait for mmdet's import.
if 'mmdet_adasap.env' not in sys.orig_argv:
    register_all()

__all__ = ['__version__']
