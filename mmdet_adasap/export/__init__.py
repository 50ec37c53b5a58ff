# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A pruned model in files that need nothing of this package."""

from .comparison import format_table
from .export import export_pruned

__all__ = [
    'export_pruned',
    'format_table',
]
