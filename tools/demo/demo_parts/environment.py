# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What is installed: versions, the tools of mmdet and mmpretrain, and how to keep them quiet."""

import contextlib
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata

from .program import ROOT


def environment(packages: Sequence[str]) -> dict[str, str]:
    """What the results may depend on.

    Args:
        packages (Sequence[str]): Distributions, of which those that are there are named.
    """
    versions = {'python': platform.python_version(), 'machine': platform.machine()}
    for name in ('torch', 'numpy', 'opencv-python-headless', 'pillow', *packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def find_tool(name: str) -> str:
    """The path of a tool, as mmdet_adasap.env names it."""
    command = [sys.executable, '-m', 'mmdet_adasap.env', '--tool', name]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr.strip())
    return found.stdout.strip()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what mmdet and mmpretrain print and warn of while imported and built off the screen."""
    with (
        open(os.devnull, 'w') as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        yield
