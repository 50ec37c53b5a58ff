# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The parser of a command, its name in messages, the types of its arguments, and the cores."""

import argparse
import os
import sys
from pathlib import Path


def make_parser(script: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose examples name the program as the user has started it.

    Args:
        script (str): The script in ``tools/`` that runs the command, as the description has it.
        description (str, optional): Text of ``--help``, with examples that begin with
            ``python tools/SCRIPT``. Python has none where it leaves docstrings out (``-OO``).
    """
    if Path(sys.argv[0]).suffix != '.py':
        # Started by `adasap`: an installed package has no tools/.
        description = (description or '').replace(f'python tools/{script}', sys.argv[0])
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def called_as() -> str:
    """Return the program as the user has started it, with which its messages begin.

    Returns:
        str: ``adasap groups``, or ``list_groups`` for ``tools/list_groups.py``.
    """
    script = Path(sys.argv[0])
    return script.stem if script.suffix == '.py' else sys.argv[0]


def at_least_0(text: str) -> int:
    """Read an integer of at least 0."""
    return _integer(text, 0)


def at_least_1(text: str) -> int:
    """Read an integer of at least 1."""
    return _integer(text, 1)


def at_least_2_or_0(text: str) -> int:
    """Read an integer of at least 2, or 0 for none."""
    return 0 if text == '0' else _integer(text, 2)


def _integer(text: str, least: int) -> int:
    """Read an integer of at least ``least``."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f'{text!r} must be an integer of at least {least}')
    return int(text)


def cores() -> int:
    """Return how many cores this process may use; 1 on Windows and macOS, which do not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
