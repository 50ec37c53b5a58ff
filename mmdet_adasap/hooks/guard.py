# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Refuse checkpoints that cannot be loaded rightly, before the model is changed.

mmengine logs weights of another shape and goes on with random ones. Loading is a function
without a hook or a registry, so it is wrapped: where this package is imported and nothing has
given the model its pruned shape, loading ends with an error instead. So does, with a word on what
to go on from, reading a file that is damaged or missing.
"""

import functools
import os
import warnings

from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner

from ..checkpoints import UnreadableCheckpoint, advice, first_line, is_readable
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


def guard_reading() -> None:
    """Have unreadable files named together with what a run can go on from, once.

    That goes for local files and for what ``last_checkpoint`` names.
    """
    load = CheckpointLoader._schemes['']
    if not hasattr(load, 'names_the_newest'):
        # mmengine tells the backend from the function's name, which wraps() keeps.
        CheckpointLoader.register_scheme('', _naming_the_newest(load), force=True)
    find = mmengine_runner.find_latest_checkpoint
    if not hasattr(find, 'names_the_newest'):
        mmengine_runner.find_latest_checkpoint = _checking_the_name(find)


def _naming_the_newest(load):
    @functools.wraps(load)
    def guarded(filename, *args, **kwargs):
        path = os.path.expanduser(filename)
        folder = os.path.dirname(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'{path} is missing; {advice(folder)}')
        try:
            checkpoint = load(filename, *args, **kwargs)
        except Exception as error:
            if is_readable(path):  # the device may be missing or full
                raise
            raise UnreadableCheckpoint(
                f'{path} cannot be read as a checkpoint ({first_line(error)}); '
                f'{advice(folder, path)}'
            ) from error
        if not isinstance(checkpoint, dict):
            raise UnreadableCheckpoint(
                f'{path} is not a checkpoint: it holds a {type(checkpoint).__name__}; '
                f'{advice(folder, path)}'
            )
        return checkpoint

    guarded.names_the_newest = True
    return guarded


def _checking_the_name(find):
    @functools.wraps(find)
    def guarded(path):
        record = os.path.join(path, 'last_checkpoint')
        try:
            found = find(path)
        except UnicodeDecodeError as error:
            raise UnreadableCheckpoint(f'{record} is damaged; {advice(path)}') from error
        if found == '':
            raise UnreadableCheckpoint(f'{record} is empty; {advice(path)}')
        if found is not None and '://' not in found and not os.path.exists(found):
            folder = os.path.dirname(found)
            beside = advice(folder if os.path.isdir(folder) else path)
            raise FileNotFoundError(f'{record} names {found!r}, which is missing; {beside}')
        return found

    guarded.names_the_newest = True
    return guarded
