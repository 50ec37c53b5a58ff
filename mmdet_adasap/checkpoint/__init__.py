# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The checkpoint of a pruned model: read as data, its shape restored, a wrong load stopped."""

from .restore import (
    check_weights_fit,
    load_checkpoint_dict,
    load_pruned,
    read_parts,
    restore_structure,
)
from .safe_load import is_readable, read_checkpoint, resume_advice

__all__ = [
    'check_weights_fit',
    'is_readable',
    'load_checkpoint_dict',
    'load_pruned',
    'read_checkpoint',
    'read_parts',
    'restore_structure',
    'resume_advice',
]
