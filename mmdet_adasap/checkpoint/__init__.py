# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The checkpoint of a pruned model: read as data, its shape restored, a wrong load stopped."""

from .restore import (
    load_checkpoint_dict,
    load_pruned,
    restore_structure,
    structure_of,
)
from .safe_load import meta_of, read_checkpoint, resume_advice

__all__ = [
    'load_checkpoint_dict',
    'load_pruned',
    'meta_of',
    'read_checkpoint',
    'restore_structure',
    'resume_advice',
    'structure_of',
]
