# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write the folder of an export as a whole or not at all."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..fileio import bring_to_disk

REPORT_MARK = 'exported_by'
"""Key of report.json that says who wrote a folder."""
EXPORTED_FILES = (
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
"""Patterns of what an export writes, and importing it; all else in the folder is the user's."""


def check_folder(folder: Path, force: bool = False) -> None:
    """Raise FileExistsError if a folder holds what no export wrote.

    Args:
        folder (Path): The folder to write.
        force (bool): Allow other files in it. Defaults to False.

    Raises:
        FileExistsError: Naming the first such file.
        NotADirectoryError: If it, or what it should be in, is a file.
        ValueError: If mmengine cannot write its name into a config.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise NotADirectoryError(f'--out {folder}: {part} is a file; name a folder')
    # They end a string of the config, or begin a template of it.
    odd = [text for text in ('"', '\\', '\n', '{{') if text in str(folder)]
    if odd:
        raise ValueError(
            f'--out {str(folder)!r} has {odd[0]!r} in its name, which a config of mmengine cannot '
            f'hold; name a folder without'
        )
    if force or not folder.exists():
        return
    foreign = _foreign_files(folder)
    if foreign or (any(folder.iterdir()) and not _is_export(folder)):
        name = (foreign or sorted(folder.iterdir()))[0].name
        raise FileExistsError(
            f'--out {folder} is not empty, and no export wrote {name} there; name another folder, '
            f'or write beside what is there with --force'
        )


def onnx_files(folder: Path) -> list[str]:
    """Return the names of the ONNX files that an export has left in a folder."""
    found = (name for name in EXPORTED_FILES if name.endswith('.onnx'))
    return [name for name in found if (folder / name).exists()]


def _is_export(folder: Path) -> bool:
    """Return whether an export wrote the report.json of a folder."""
    try:
        return REPORT_MARK in json.loads((folder / 'report.json').read_text())
    except (OSError, ValueError):
        return False


def _foreign_files(folder: Path) -> list[Path]:
    """Return the files that no export writes."""
    return [
        p for p in sorted(folder.iterdir()) if not any(p.match(name) for name in EXPORTED_FILES)
    ]


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside ``folder``, which takes its place when no error occurred.

    Files of the user in the old one are moved over.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        new.chmod(0o777 & ~_umask())  # mkdtemp makes folders that nobody else can read
        yield new
        for file in new.iterdir():
            bring_to_disk(file)
        _swap(new, folder)
        bring_to_disk(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    """Put a new folder in the place of an old one, if there is one."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f'.{folder.name}.', dir=folder.parent))
    try:
        # One rename of the whole folder: it happens or not, and loses nothing.
        folder.rename(old)
    except OSError:
        old.rmdir()
        raise
    try:
        new.rename(folder)
        for path in _foreign_files(old):
            path.rename(folder / path.name)
    except OSError as error:
        raise OSError(
            error.errno,
            f'--out {folder} is not written whole ({error.strerror or error}); what was there '
            f'before is in {old}',
        ) from error
    shutil.rmtree(old)


def _umask() -> int:
    """Return the umask of the process."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask
