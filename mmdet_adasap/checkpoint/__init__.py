# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The checkpoint of a pruned model: read as data, its shape restored, a wrong load stopped."""

from .restore import (
    check_weights_fit,
    load_checkpoint_dict,
    load_pruned,
    load_structure,
    read_parts,
)
from .safe_load import advice, is_readable, read_checkpoint

__all__ = [
    'advice',
    'check_weights_fit',
    'is_readable',
    'load_checkpoint_dict',
    'load_pruned',
    'load_structure',
    'read_checkpoint',
    'read_parts',
]
