# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A built-in set and its folder, written in one piece or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class MadeSet:
    """A set that a tool makes, and the settings it is made from.

    Attributes:
        manifest (str): Name of the file that says what the folder holds.
        version (int): Counts up whenever the same settings begin to give other bytes.
        settings (dict[str, int]): The settings.
        write (Callable[[Path], None]): Writes the set into a folder that is not there yet.
        check (Callable[[Path], None]): Raises FileNotFoundError if files of it are missing in a
            folder.
    """

    manifest: str
    version: int
    settings: dict[str, int]
    write: Callable[[Path], None]
    check: Callable[[Path], None]


def put_set(made: MadeSet, out: Path, force: bool) -> bool:
    """Write a set, unless it is there.

    Args:
        made (MadeSet): The set.
        out (Path): Its folder. It appears only when it is complete.
        force (bool): Whether to replace a set with other settings, or part of one.

    Returns:
        bool: False if the same set was there already and nothing was done.

    Raises:
        FileExistsError: If the folder holds another set, part of one, or something else.
    """
    if _holds(made, out, force):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that moving it is one step of the file system.
    partial = out.parent / f'.{out.name}.partial-{os.getpid()}'
    replaced = out.parent / f'.{out.name}.replaced-{os.getpid()}'
    try:
        made.write(partial)
        manifest = {'format': made.version, 'settings': made.settings, 'versions': _versions()}
        (partial / made.manifest).write_text(json.dumps(manifest, indent=2) + '\n')
        # The old set goes only when the new one is whole: an interruption loses neither.
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def _versions() -> dict[str, str]:
    names = ('numpy', 'pillow', 'scikit-image', 'scikit-learn')
    return {name: version(name) for name in names}


def _holds(made: MadeSet, out: Path, force: bool) -> bool:
    """Return whether the folder already holds this very set.

    Raises:
        FileExistsError: If the folder must not be written to.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        manifest = json.loads((out / made.manifest).read_text())
        there = {'format': manifest['format'], **manifest['settings']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileExistsError(
            f'--out {out} exists and was not made by this tool, which therefore leaves it alone: '
            'choose another folder or remove it yourself'
        ) from error
    if force:
        return False
    differing = [
        f'{name} {there.get(name)} instead of {value}'
        for name, value in {'format': made.version, **made.settings}.items()
        if there.get(name) != value
    ]
    if differing:
        raise FileExistsError(
            f'--out {out} holds another set ({", ".join(differing)}): choose another folder, or '
            'replace it with --force'
        )
    try:
        made.check(out)
    except FileNotFoundError as error:
        raise FileExistsError(
            f'--out {out} holds a set with missing files: make it anew with --force'
        ) from error
    return True
