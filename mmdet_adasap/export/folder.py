# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A folder that is there as a whole or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..fileio import bring_to_disk

MARK = 'exported_by'
"""Key of report.json that says who wrote a folder."""
OWN = (
    'config.py',
    'mobilenet_v1.py',
    'model.onnx',
    'model.pth',
    'report.json',
    'roi_head.onnx',
    'slim_model_v*.py',
    'structure.json',
    '__pycache__',
)


def check_folder(folder: Path, force: bool = False) -> None:
    """Refuse a folder that holds what no export wrote.

    Raises:
        FileExistsError: Naming the first such file.
        NotADirectoryError: If it, or what it should be in, is a file.
        ValueError: If mmengine cannot write its name into a config.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(f'--out {folder}: {part} is a file; name a folder')
    odd = [text for text in ('"', '\\', '\n', '{{') if text in str(folder)]
    if odd:
        raise ValueError(
            f'--out {str(folder)!r} has {odd[0]!r} in its name, which a config of mmengine cannot '
            f'hold; name a folder without'
        )
    if force or not folder.exists():
        return
    others = _others(folder)
    if others or (any(folder.iterdir()) and not _is_export(folder)):
        name = (others or sorted(folder.iterdir()))[0].name
        raise FileExistsError(
            f'--out {folder} is not empty, and no export wrote {name} there; name another folder, '
            f'or write beside what is there with --force'
        )


def _is_export(folder: Path) -> bool:
    try:
        return MARK in json.loads((folder / 'report.json').read_text())
    except (OSError, ValueError):
        return False


def _others(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if not any(p.match(name) for name in OWN)]


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, which takes its place when all went well.

    What the old one held beside an export moves over.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())
        yield new
        for file in new.iterdir():
            bring_to_disk(file)
        _put(new, folder)
        bring_to_disk(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _put(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        folder.rename(old)  # a whole folder, so that nothing is lost if it fails
    except OSError:
        old.rmdir()
        raise
    try:
        new.rename(folder)
        for path in _others(old):
            path.rename(folder / path.name)
    except OSError as error:
        raise OSError(
            error.errno,
            f'--out {folder} is not written whole ({error.strerror or error}); what was there '
            f'before is in {old}',
        ) from error
    shutil.rmtree(old)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
