# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What depends on how mmengine, mmdet and mmpretrain work inside.

Nothing else in the package does, but for checkpoint/guard.py and hooks/runner_state.py. Read these
at every release of theirs: whether what they rely on is still so, and what need not be mended or
asked any more. The room is for functions that serve several wings, and knows none of these.
"""

from .compat import is_classifier, is_detector, ssd_head_is_mended
from .configs import (
    SHAPING,
    build_dense,
    find_hooks,
    image_side,
    is_mmpretrain_config,
    read_config,
    split_after_cropping,
    split_after_loading,
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
    'find_hooks',
    'image_side',
    'is_classifier',
    'is_detector',
    'is_mmpretrain_config',
    'raise_on_all_ranks',
    'read_config',
    'rewrap_model',
    'split_after_cropping',
    'split_after_loading',
    'ssd_head_is_mended',
    'type_name',
    'unwrapped',
    'without_pipeline',
]
