# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Refuse pruned checkpoints that would be loaded without their shape.

mmengine logs weights of another shape and goes on with random ones. Loading is a function
without a hook or a registry, so it is wrapped: where this package is imported and nothing has
given the model its pruned shape, loading ends with an error instead.
"""

import functools
import warnings

from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner

from ..pruning.loading import refuse_misfit
from ..pruning.structure import META_KEY, check_structure
from ..unwrapping import unwrapped


def guard_loading() -> None:
    """Wrap mmengine's loading, once."""
    load = getattr(mmengine_checkpoint, '_load_checkpoint_to_model', None)
    if load is None:
        warnings.warn(
            'this mmengine loads checkpoints in a way that mmdet_adasap does not know, so one '
            'that is pruned and loaded without AdaSAPHook is not refused; read the log for sizes '
            'that do not fit, or use the mmengine of requirements/openmmlab.txt',
            RuntimeWarning,
            stacklevel=2,
        )
        return
    if hasattr(load, 'refuses_misfit'):
        return

    @functools.wraps(load)
    def guarded(model, checkpoint, *args, **kwargs):
        structure = isinstance(checkpoint, dict) and (checkpoint.get('meta') or {}).get(META_KEY)
        if structure:
            check_structure(structure)
            refuse_misfit(unwrapped(model), checkpoint.get('state_dict', {}))
        return load(model, checkpoint, *args, **kwargs)

    guarded.refuses_misfit = True
    mmengine_checkpoint._load_checkpoint_to_model = guarded
    mmengine_runner._load_checkpoint_to_model = guarded
