# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Environments that lack one of the packages installed here."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def without(folder: Path, *parts: str) -> dict:
    """The environment variables of a Python that has all packages but some.

    Args:
        folder (Path): An empty folder.
        *parts (str): What is in the names of the packages to leave out, and of what was
            installed with them.
    """
    for package in Path(sysconfig.get_paths()['purelib']).iterdir():
        if not any(part in package.name for part in parts):
            (folder / package.name).symlink_to(package)
    path = os.pathsep.join(map(str, (ROOT, ROOT / 'tests', folder)))
    return os.environ | dict(PYTHONPATH=path, OMP_NUM_THREADS='1')


def python(environment: dict, *arguments: object) -> str:
    """Run a program with no installed packages but those of :func:`without`.

    Returns:
        str: What it printed.
    """
    done = subprocess.run(
        [sys.executable, '-S', *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout
