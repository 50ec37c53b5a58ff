# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the commands have in common: types of their arguments, and the number of cores."""

import argparse
import os


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
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f'{text!r} must be an integer of at least {least}')
    return int(text)


def cores() -> int:
    """Return how many cores this process may use; 1 where the system does not say.

    Windows and macOS do not.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
