# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""AdaSAP for MMDetection: adaptive sharpness-aware pruning, arXiv:2306.14306.

Importing the package registers its hooks, optimizer wrappers, data sets and models, so a config
needs only ``custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)``. What
needs a library registers when that library is imported, which may be later.
"""

from .registration import register_all
from .version import __version__

__all__ = ['__version__', 'register_all']

register_all()
