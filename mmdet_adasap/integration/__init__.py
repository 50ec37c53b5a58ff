# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""All that knows how mmengine, mmdet and mmpretrain work inside, but for checkpoint/guard.py
and hooks/runner_state.py. Read it at every release of theirs.
"""

from .compat import is_classifier, is_detector
from .configs import (
    SHAPING,
    build_dense,
    hooks_of,
    image_side,
    of_mmpretrain,
    read_config,
    split_behind_cropping,
    split_behind_loading,
    type_name,
    without_pipeline,
)
from .distributed import (
    broadcast_from_rank_0,
    check_same_on_all_ranks,
    check_wrapper,
    raise_on_all_ranks,
    rewrap_model,
    unwrapped,
)

__all__ = [
    'SHAPING',
    'broadcast_from_rank_0',
    'build_dense',
    'check_same_on_all_ranks',
    'check_wrapper',
    'hooks_of',
    'image_side',
    'is_classifier',
    'is_detector',
    'of_mmpretrain',
    'raise_on_all_ranks',
    'read_config',
    'rewrap_model',
    'split_behind_cropping',
    'split_behind_loading',
    'type_name',
    'unwrapped',
    'without_pipeline',
]
