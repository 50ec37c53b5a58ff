# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Remember which steps are finished, so that a second call goes on where the first stopped."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from .environment import quietly


def fingerprint(*parts: object, files: Iterable[Path] = ()) -> str:
    """A key that changes when a part or the content of a file does."""
    digest = hashlib.sha256(repr(parts).encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Step:
    """One step and its folder.

    Args:
        folder (Path): For its files alone.
        key (str): Fingerprint of all that the step depends on. What was made under another key
            is removed.
        force (bool): Whether to remove what is there in any case. Defaults to False.

    Attributes:
        finished (bool): Whether nothing is left to do.
        seconds (float): What it took, over all calls that worked on it.
    """

    def __init__(self, folder: Path, key: str, force: bool = False) -> None:
        self.folder = folder
        self.key = key
        self._file = folder / 'step.json'
        state = self._read()
        if state and (force or state['key'] != key):
            shutil.rmtree(folder)
            state = {}
        self.finished: bool = state.get('finished', False)
        self.seconds: float = state.get('seconds', 0.0)
        self._write()

    def add(self, seconds: float, finished: bool) -> None:
        """Write down time spent, and whether the step is finished."""
        self.seconds += seconds
        self.finished = finished
        self._write()

    def _read(self) -> dict:
        if not self._file.exists():
            return {}
        try:
            return json.loads(self._file.read_text())
        except json.JSONDecodeError:
            return {'key': None}  # as if it had been made otherwise

    def _write(self) -> None:
        with quietly():  # it takes seconds, for which --help need not wait
            from mmdet_adasap.fileio import write_atomically

        self.folder.mkdir(parents=True, exist_ok=True)
        state = {'key': self.key, 'finished': self.finished, 'seconds': self.seconds}
        write_atomically(self._file, json.dumps(state))
