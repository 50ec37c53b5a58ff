# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The file of a pruned model: read as data, its shape restored, a wrong load refused."""

from .restore import load_checkpoint_dict, load_pruned, load_structure, read_parts, refuse_misfit
from .safe_load import advice, is_readable, read_checkpoint

__all__ = [
    'advice',
    'is_readable',
    'load_checkpoint_dict',
    'load_pruned',
    'load_structure',
    'read_checkpoint',
    'read_parts',
    'refuse_misfit',
]
