# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What depends on how mmengine, mmdet and mmpretrain work inside, and serves several subpackages.

Read it at every release of theirs: whether what it relies on is still so, and what need not be
mended any more. These files depend on it as well, each for its own subject alone:

- ``checkpoint/guard.py``: three functions that mmengine loads checkpoints with;
- ``hooks/runner_state.py``: private attributes of Runner, EMAHook and CheckpointHook;
- ``hooks/slim_model_hook.py``: ``Runner.register_hooks``, which it adds a hook to;
- ``hooks/training_plan.py``: the base class of schedulers, and what they keep of an optimizer;
- ``hooks/atomic_checkpoint_hook.py``: three private methods of CheckpointHook;
- ``apis/inference.py``: what mmpretrain's inferencer looks for on a model;
- ``robustness/metrics/``: the pool of mmdet's eval_map, COCOeval, results that metrics keep;
- ``models/forward.py``: ``rpn_head.predict`` of two-stage detectors;
- ``pruning/tracing.py``: the functions of ``mmcv._ext``.
"""

from .compat import is_classifier, is_detector, quiet_logging, ssd_head_is_mended
from .configs import (
    SHAPING,
    build_dense,
    enter_scope,
    find_hooks,
    image_side,
    is_mmpretrain_config,
    library_of,
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
    'enter_scope',
    'find_hooks',
    'image_side',
    'is_classifier',
    'is_detector',
    'is_mmpretrain_config',
    'library_of',
    'quiet_logging',
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
