# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write files in one piece: whoever reads one finds the old or the new, never half of it.

And end a program quietly whose reader has gone.
"""

import contextlib
import errno
import functools
import os
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None

PARTIAL = re.compile(r'\..*\.[0-9a-f]{8}\.mmdet_adasap-partial', re.DOTALL)
REMEDY = 'make room for it, or choose a folder on another disk'

CLOSED_PIPE = 141
"""Exit status of a program whose reader has gone: 128 + SIGPIPE, as a shell has it for others."""

P, R = ParamSpec('P'), TypeVar('R')


def quiet_on_closed_pipe(main: Callable[P, R]) -> Callable[P, R]:
    """Let a command end without a traceback when ``| head`` has read enough of it."""

    @functools.wraps(main)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()  # Python would find the closed pipe when nobody catches it
        except BrokenPipeError:
            # What is still in the buffers goes nowhere, else Python's last flush complains.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere, stream.fileno())
            sys.exit(CLOSED_PIPE)

    return command


def write_atomically(path: str | Path, data: bytes | str, remedy: str = REMEDY) -> None:
    """Write a file beside its place, bring it to the disk, and rename it.

    A device or a pipe has no beside and is written to as it is. A link stays one.

    Args:
        path (str | Path): The file; its folder must be there.
        data (bytes | str): All that is to be in it; text as UTF-8.
        remedy (str): What the error tells the user to do if the disk is full.

    Raises:
        OSError: If it cannot be written. Nothing of it is left, and a file that was there before
            is as it was.
    """
    data = data.encode() if isinstance(data, str) else data
    target = Path(os.path.realpath(path))
    # A name may have 255 bytes, and a character up to 4: 50 of them leave room for the suffix. Its
    # random part keeps two writers of one file apart.
    suffix = f'.{secrets.token_hex(4)}.mmdet_adasap-partial'
    partial = target.with_name(f'.{target.name[:50]}{suffix}')
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(data)
            return
        with partial.open('xb') as file:
            _lock(file)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException as error:  # KeyboardInterrupt, too, is to leave nothing behind
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error) or type(error).__name__
            # No space, over the quota, or larger than the file system allows.
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            advice = remedy if full else 'see that it can be written to, or choose another folder'
            text = f'{path} is not written ({reason}); what was there before still is; {advice}'
            raise OSError(error.errno, text) from error
        raise
    # Without this the new name may be lost when the power fails.
    bring_to_disk(target.parent)


def remove_partial_files(folder: str | Path) -> list[Path]:
    """Remove what killed processes had begun to write with :func:`write_atomically`.

    Args:
        folder (str | Path): Where to look, not below it. It may be missing.

    Returns:
        list[Path]: What was removed.
    """
    left = [file for file in Path(folder).glob('.*') if PARTIAL.fullmatch(file.name)]
    return [file for file in left if file.is_file() and _remove_if_left(file)]


def _lock(file) -> None:
    """Lock a file that is being written; the lock ends with the process, however it ends."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)


def _remove_if_left(file: Path) -> bool:
    """Remove a file unless somebody holds its lock, and return whether it is gone."""
    try:
        with file.open('r+b') as opened:
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink()
    except OSError:  # another run is writing it, or it is another user's
        return False
    return True


def bring_to_disk(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk now, where it can."""
    with contextlib.suppress(OSError):
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
