# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the demos have in common as programs: their options, and how they begin and end."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mmdet_adasap.cli.arguments import cores

ROOT = Path(__file__).resolve().parents[3]


def say(text: str) -> None:
    print(text, flush=True)


def seed_option(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f'{text!r} must be an integer from 0 to 2**32 - 1')
    return int(text)


def make_parser(description: str, out: str) -> argparse.ArgumentParser:
    """The options of every demo.

    Args:
        description (str): What it does.
        out (str): Folder below work_dirs for what it makes, unless told otherwise.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out',
        type=lambda path: Path(path).resolve(),
        default=ROOT / 'work_dirs' / out,
        help=f'default: work_dirs/{out}',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        choices=(1, 2),
        default=min(2, cores()),
        help='programs to run at once, of one thread each (default: 2, or 1 on a single core)',
    )
    parser.add_argument('--force', action='store_true', help='redo finished steps')
    return parser


def run_program(name: str, work: Callable[[], None]) -> None:
    """Do the work of a demo; end in one line where it is interrupted or a file cannot be had."""
    # As an interrupt does: end what was started, and note the time that it took.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The paths in the configs are relative to the checkout.
    os.chdir(ROOT)
    try:
        work()
    except KeyboardInterrupt:
        sys.exit('\nInterrupted. The same command goes on from here.')
    except OSError as error:
        sys.exit(f'{name}: {error}')
