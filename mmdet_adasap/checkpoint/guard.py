# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Stop mmengine from loading a checkpoint that does not fit, before the model is changed.

mmengine logs weights of another shape and goes on with random ones. Loading is a function without
a hook or a registry, so it is wrapped: where this package is imported and nothing has given the
model its pruned shape, loading ends with an error instead. Where a file is damaged or missing,
mmengine's error also names one to go on from; where torch refuses what mmengine itself has
written, it is read as data. All that is not of a pruned model is left to mmengine, whatever it
holds. Three functions are wrapped, and what a release no longer has is left alone, with a warning.
If mmengine loaded strictly by default, and named what it cannot read, this file could go.
"""

import contextlib
import functools
import os
import pickle
import sys
import warnings
from collections.abc import Callable

from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner

from ..errors import UnreadableCheckpointError, one_line, unreadable
from ..integration import unwrapped
from .restore import check_slim_weights
from .safe_load import is_readable, read_checkpoint, resume_advice

GUARDED = '_mmdet_adasap_guarded'
"""Mark of a function that is wrapped, so that it is not wrapped twice."""


def guard() -> None:
    """Wrap what mmengine loads checkpoints with, once.

    Warns:
        RuntimeWarning: If this mmengine does not have it.
    """
    unknown = []
    load = getattr(mmengine_checkpoint, '_load_checkpoint_to_model', None)
    if load is None:
        unknown.append('a pruned checkpoint that is loaded without AdaSAPHook is not refused')
    elif not hasattr(load, GUARDED):
        _replace_in_all_modules(load, _check_weights_before(load))

    # The empty scheme, of paths without "://", is that of local files.
    read = getattr(CheckpointLoader, '_schemes', {}).get('')
    if read is None:
        unknown.append('unreadable files are not named together with the newest readable one')
    elif not hasattr(read, GUARDED):
        # mmengine tells the backend from the function's name, which wraps() keeps.
        CheckpointLoader.register_scheme('', _name_newest_after(read), force=True)

    find = getattr(mmengine_runner, 'find_latest_checkpoint', None)
    if find is None:
        unknown.append('a damaged last_checkpoint is not named')
    elif not hasattr(find, GUARDED):
        mmengine_runner.find_latest_checkpoint = _check_name_after(find)

    if unknown:
        warnings.warn(
            f'this mmengine loads checkpoints in a way that mmdet_adasap does not know: '
            f'{"; ".join(unknown)}. Read the log for sizes that do not fit, or use the mmengine '
            f'of requirements/onedl.txt',
            RuntimeWarning,
            stacklevel=2,
        )


def _replace_in_all_modules(old: Callable, new: Callable) -> None:
    """Replace a function in every module that has it under its own name.

    mmengine's Runner and inferencers and mmdet's DetInferencer have imported it from its module,
    and those that were loaded before this package would go on with the old one.
    """
    for module in list(sys.modules.values()):
        if getattr(module, '__dict__', {}).get(old.__name__) is old:
            setattr(module, old.__name__, new)


def _marked(guarded: Callable) -> Callable:
    """Mark a function as wrapped, and return it."""
    setattr(guarded, GUARDED, True)
    return guarded


def _check_weights_before(load: Callable) -> Callable:
    """Wrap what loads weights into a model: those of a slim model have to fit it."""

    @functools.wraps(load)
    def guarded(model, checkpoint, *args, **kwargs):
        check_slim_weights(unwrapped(model), checkpoint)
        return load(model, checkpoint, *args, **kwargs)

    return _marked(guarded)


def _name_newest_after(load: Callable) -> Callable:
    """Wrap what reads a file: data that torch refuses is read, damage named with a whole file."""

    @functools.wraps(load)
    def guarded(filename, *args, **kwargs):
        path = os.path.expanduser(filename)
        folder = os.path.dirname(path)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'{path} is missing; {resume_advice(folder)}')
        try:
            return load(filename, *args, **kwargs)
        except Exception as error:
            if isinstance(error, pickle.UnpicklingError):
                # mmengine up to 0.10.7 does not tell torch 2.6 what its checkpoints hold.
                with contextlib.suppress(UnreadableCheckpointError):
                    return read_checkpoint(path, *args, **kwargs)
            # The device that tensors are loaded to may be missing or full.
            if is_readable(path):
                raise
            raise unreadable(
                f'{path} cannot be read as a checkpoint ({one_line(error)}); '
                f'{resume_advice(folder, path)}',
                type(error),
            ) from error

    return _marked(guarded)


def _check_name_after(find: Callable) -> Callable:
    """Wrap what reads ``last_checkpoint``: what it names has to be there."""

    @functools.wraps(find)
    def guarded(path):
        record = os.path.join(path, 'last_checkpoint')
        try:
            found = find(path)
        except UnicodeDecodeError as error:
            raise unreadable(f'{record} is damaged; {resume_advice(path)}', type(error)) from error
        if found == '':  # mmengine would look for a file of that name
            raise unreadable(f'{record} is empty; {resume_advice(path)}', FileNotFoundError)
        if found is not None and '://' not in found and not os.path.exists(found):
            folder = os.path.dirname(found)
            beside = resume_advice(folder if os.path.isdir(folder) else path)
            raise FileNotFoundError(f'{record} names {found!r}, which is missing; {beside}')
        return found

    return _marked(guarded)
