# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The demos as programs: options, beginning and end, and what is installed."""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from mmdet_adasap.cli.arguments import cores

ROOT = Path(__file__).resolve().parents[3]


def say(text: str) -> None:
    """Print a line at once, also where the output goes to a file."""
    print(text, flush=True)


def seed_option(text: str) -> int:
    """Read a seed from the command line.

    Args:
        text (str): What was written there.

    Raises:
        ArgumentTypeError: If it is no integer that numpy takes as a seed.
    """
    # numpy.random.seed, which mmengine calls, takes 32 bits.
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f'{text!r} must be an integer from 0 to 2**32 - 1')
    return int(text)


def make_parser(description: str, out: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every demo.

    Args:
        description (str): What the demo does.
        out (str): Default folder for its files, below work_dirs.
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
    """Run a demo; end with one line if it is interrupted or a file cannot be had.

    Args:
        name (str): Name of the demo, for that line.
        work (Callable[[], None]): The demo.
    """
    # SIGTERM then stops the jobs and notes their time, as an interrupt from the keyboard does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The paths in the configs are relative to the checkout.
    os.chdir(ROOT)
    try:
        work()
    except KeyboardInterrupt:
        sys.exit('\nInterrupted. The same command goes on from here.')
    except OSError as error:
        sys.exit(f'{name}: {error}')


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions that the results may depend on, by name.

    Args:
        packages (Sequence[str]): Distributions beside torch's; those not installed are left out.
    """
    versions = {'python': platform.python_version(), 'machine': platform.machine()}
    for name in ('torch', 'numpy', 'opencv-python-headless', 'pillow', *packages):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def find_tool(name: str) -> str:
    """Return the path of a tool, as ``python -m mmdet_adasap.env --tool`` prints it.

    Args:
        name (str): As ``train`` or ``mmpretrain::train``.

    Raises:
        SystemExit: If there is no such tool; with the message of mmdet_adasap.env.
    """
    command = [sys.executable, '-m', 'mmdet_adasap.env', '--tool', name]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        sys.exit(found.stderr.strip())
    return found.stdout.strip()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hide what mmdet and mmpretrain print, and their warnings, at import and while building."""
    with (
        open(os.devnull, 'w') as nowhere,
        contextlib.redirect_stdout(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        yield
