# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What is installed, whether it imports, and what mends it: ``python -m mmdet_adasap.env``.

Importing this needs the standard library alone.
"""

from .command import collect, find_tool, main, render
from .remedies import Remedies

__all__ = [
    'Remedies',
    'collect',
    'find_tool',
    'main',
    'render',
]
