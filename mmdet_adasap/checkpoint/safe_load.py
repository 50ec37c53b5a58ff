# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Read checkpoints as data, and say what to do about one that cannot be read."""

import contextlib
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from ..errors import UnreadableCheckpointError, one_line
from .plain_data import NAMES, finished
from .restricted_pickle import read_archive

LONGEST_REASON = 300
"""Characters of what reading complains of: a name in a file may fill the screen."""
_LOCK = threading.Lock()
"""Held while torch's list of what is data, which all threads share, is ours."""
MapLocation = str | torch.device | Callable | dict | None


def read_checkpoint(filename: str, map_location: MapLocation = 'cpu', mmap: bool = False) -> dict:
    """Read a checkpoint of mmengine as data; no code in it is run.

    Args:
        filename (str): The file.
        map_location (str | torch.device | Callable | dict, optional): Where tensors are loaded
            to, as ``torch.load`` takes it. Defaults to 'cpu'.
        mmap (bool): Whether to leave the tensors in the file until they are used, if it has the
            format that allows it. Defaults to False.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableCheckpointError: If the file is damaged, or holds objects that mmengine does not
            write.
    """
    filename = os.path.expanduser(filename)
    if not os.path.exists(filename):
        raise FileNotFoundError(f'{filename} is missing; name a checkpoint that is there')
    # torch raises an error for files in the format before torch 1.6, which are no zip files.
    mmap = mmap and zipfile.is_zipfile(filename)
    try:
        checkpoint = finished(_load_data(filename, map_location, mmap))
        fault = _find_fault(checkpoint)
    except Exception as error:  # what a damaged file makes of pickle's instructions
        if isinstance(error, OSError) and error.filename == filename:
            raise
        if 'deserialize object on' in str(error) or 'know how to restore' in str(error):
            raise ValueError(
                f'{filename} cannot be loaded to map_location={map_location!r} ({_reason(error)})'
            ) from error
        raise UnreadableCheckpointError(
            f'{filename} is damaged or holds more than data, and is not loaded '
            f'({_reason(error)}); take a checkpoint as train.py writes it'
        ) from error
    if fault:
        raise UnreadableCheckpointError(
            f'{filename}: {fault}; take a checkpoint as train.py writes it'
        )
    return checkpoint


def _load_data(filename: str, map_location: MapLocation, mmap: bool) -> object:
    """Read a file by torch's own restricted pickle if that takes our names, else by ours."""
    if TORCH_TAKES_NAMES:
        with _safe_names():
            return torch.load(filename, map_location=map_location, weights_only=True, mmap=mmap)
    return read_archive(filename, map_location)


@contextlib.contextmanager
def _safe_names() -> Iterator[None]:
    """Let torch.load take the names of :data:`NAMES`, and none that others have called safe.

    Another package may have given the same name its real function, and of two torch takes any.
    """
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([(value, name) for name, value in NAMES.items()])
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def _reason(error: Exception) -> str:
    """Return what reading complains of, without torch's advice to run what is in the file."""
    text = str(error)
    found = re.search(r'WeightsUnpickler error:\s*(.+?)(?: was not an allowed|\. |$)', text, re.M)
    if found is None and 'weights_only' in text:
        return 'it holds more than weights and plain data'
    reason = found[1] if found else one_line(error)
    return ''.join(c if c.isprintable() else '?' for c in reason[:LONGEST_REASON])


def _find_fault(checkpoint: object) -> str | None:
    """Return what a checkpoint has in the wrong form: weights by name, or plain data on them."""
    if not isinstance(checkpoint, dict):
        return f'it holds a {type(checkpoint).__name__} and no checkpoint'
    # A file of weights alone has them at the top; one of meta alone has none.
    weights = checkpoint.get('state_dict', {} if 'meta' in checkpoint else checkpoint)
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in weights.items()
    ):
        return 'its state_dict is not one of tensors by name'
    trained_on = meta_of(checkpoint).get('dataset_meta')
    trained_on = {} if trained_on is None else trained_on
    if not isinstance(trained_on, Mapping):
        return 'its meta.dataset_meta is not a dict'
    if not all(isinstance(key, str) for key in trained_on):
        return 'its meta.dataset_meta has keys that are no text'
    for key in ('classes', 'CLASSES'):
        if not isinstance(trained_on.get(key), list | tuple | str | None):
            return f'its meta.dataset_meta.{key} is no list of names'
    return None


def meta_of(checkpoint: object) -> Mapping:
    """Return what a checkpoint says about its weights; nothing if that is not in mmengine's form.

    Other programs may write a text there, which mmengine does not mind.
    """
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def is_readable(filename: str) -> bool:
    """Return whether a file is a whole checkpoint, without reading its tensors."""
    return _read_or_none(filename) is not None


def resume_advice(folder: str, besides: str | None = None) -> str:
    """Return the end of a message: the checkpoint that a run can go on from.

    Args:
        folder (str): Where to look for checkpoints.
        besides (str, optional): The one that cannot be read.
    """
    newest = _newest(folder, besides)
    if newest is None:
        return (
            'there is no whole checkpoint beside it to go on from; name another one (load_from, '
            '--resume), or train it first'
        )
    return (
        f'the newest whole checkpoint beside it is {newest}: load that, or to go on with its run '
        f'--resume {newest} without load_from in --cfg-options'
    )


def _newest(folder: str, besides: str | None) -> str | None:
    """Return the newest checkpoint that a run can go on from; one with an optimizer goes first."""
    without_optimizer = None
    for file in _by_age(folder):
        if besides is not None and file.name == os.path.basename(besides):
            continue
        checkpoint = _read_or_none(str(file))
        # A published file has no message_hub, without which mmengine cannot resume.
        if checkpoint is None or not {'meta', 'message_hub'} <= checkpoint.keys():
            continue
        name = os.path.join(folder, file.name)
        if 'optimizer' in checkpoint:
            return name
        without_optimizer = without_optimizer or name
    return without_optimizer


def _by_age(folder: str) -> Iterator[Path]:
    """Yield the checkpoints of a folder, the newest first."""
    files = [file for file in Path(folder or '.').glob('*.pth') if file.is_file()]
    yield from sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)


def _read_or_none(filename: str) -> dict | None:
    try:
        checkpoint = read_checkpoint(filename, mmap=True)
    except Exception:  # what is not a checkpoint may fail in any way
        return None
    return checkpoint


TORCH_TAKES_NAMES = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 6)
"""Whether torch can be told that a name in a file stands for another function than it says:
``add_safe_globals`` takes pairs of a function and a name since torch 2.6."""
