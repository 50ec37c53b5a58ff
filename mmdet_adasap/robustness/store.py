# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ProtocolMismatchError
from ..fileio import remove_partial_files, write_atomically
from .datasets.multi_view import CLEAN, Condition
from .protocol import check_same_protocol, digest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


EXAMPLES = 'examples'


class ResultsFolder:
    """A folder that a run writes its cells into, each at once, and goes on from.

    Args:
        folder (str | Path): The folder; it is made.
        protocol (Mapping): What the figures depend on.

    Attributes:
        cells (dict[Condition, dict]): The cells that are there.

    Raises:
        ProtocolMismatchError: If the folder holds results of other settings.
        BlockingIOError: If another run writes there now.
        OSError: If it cannot be written to.
    """

    def __init__(self, folder: str | Path, protocol: Mapping) -> None:
        self.folder = Path(folder)
        self.protocol = protocol
        self._key = digest(dict(protocol))
        self._file = self.folder / 'results.json'
        self._cells = self.folder / 'cells'
        self._cells.mkdir(parents=True, exist_ok=True)
        self._lock()
        for place in (self.folder, self._cells, self.folder / EXAMPLES):
            remove_partial_files(place)
        self._check()
        self.cells = self._read()

    def add(self, condition: Condition, cell: dict) -> None:
        """Write down a cell."""
        stamps = {one['image']: _stamp(one['image']) for one in cell['unreadable']}
        found = {'protocol': self._key, 'stamps': stamps, **cell}
        text = json.dumps(found, allow_nan=False) + '\n'
        write_atomically(self._path(condition), text)
        self.cells[condition] = json.loads(text)

    def keep(self, name: str, value: dict) -> None:
        """Write down something else that a run that goes on need not compute again."""
        text = json.dumps({'protocol': self._key, 'value': value}) + '\n'
        write_atomically(self._cells / f'_{name}.json', text)

    def kept(self, name: str) -> dict | None:
        """What :meth:`keep` has written, if it was for this protocol."""
        found = _read_json(self._cells / f'_{name}.json')
        return found['value'] if found and found.get('protocol') == self._key else None

    def shows(self, condition: Condition, number: int, view: int) -> bool:
        """Whether an example was written down before."""
        return example_file(self.folder, *condition, number, view).is_file()

    def show(self, condition: Condition, number: int, view: int, picture: bytes) -> None:
        """Write down an example as models saw it, a JPEG, for a report."""
        file = example_file(self.folder, *condition, number, view)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, picture)

    def write(self, results: Mapping) -> None:
        """Write results.json."""
        write_atomically(self._file, json.dumps(results, indent=1, allow_nan=False) + '\n')

    def close(self) -> None:
        """Let others write into the folder."""
        self._held.close()

    def _path(self, condition: Condition) -> Path:
        name = 'clean' if condition == CLEAN else f'{condition.corruption}-{condition.severity}'
        return self._cells / f'{name}.json'

    def _lock(self) -> None:
        # The lock ends with the process, however it ends.
        self._held = (self._cells / '_lock').open('w')
        if fcntl is None:
            return
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, f'another run writes into {self.folder}: wait for it, or use another'
            ) from error
        except OSError:  # some network file systems have no locks
            pass

    def _check(self) -> None:
        if not self._file.exists():
            return
        found = _read_json(self._file)
        if not isinstance((found or {}).get('protocol'), dict):
            if self._read():  # it is torn, and made anew of the cells
                return
            raise ProtocolMismatchError(
                f'{self._file} was not written by robustness.py: give another folder with --out'
            )
        check_same_protocol(str(self.folder), found['protocol'], self.protocol)

    def _read(self) -> dict[Condition, dict]:
        cells = {}
        for file in sorted(self._cells.glob('[!_]*.json')):
            cell = _read_json(file)
            if not cell or cell.get('protocol') != self._key or not _is_cell(cell, self.protocol):
                continue  # another run's, or not what this one wrote
            condition = Condition(cell['corruption'], cell['severity'])
            # One with unreadable images is tested anew when they have been touched since.
            if file == self._path(condition) and _untouched(cell['stamps']):
                cells[condition] = cell
        return cells


def example_file(folder: Path, corruption: str, severity: int, number: int, view: int) -> Path:
    """Where an example is that was kept as models saw it.

    Args:
        folder (Path): Of the run.
        corruption (str): 'none' of clean images.
        severity (int): 0 of clean images.
        number (int): Number of the image.
        view (int): Number of the pipeline that prepared it, which several models may share.
    """
    return folder / EXAMPLES / f'{number}-{corruption}-{severity}-{view}.jpg'


def _is_cell(cell: Mapping, protocol: Mapping) -> bool:
    """Whether a cell has all that the figures are made of."""
    models, resamples = cell.get('models'), protocol['bootstrap']['resamples']
    kinds = {'corruption': str, 'severity': int, 'seconds': dict, 'unreadable': list}
    kinds |= {'stamps': dict, 'models': dict}
    if not all(isinstance(cell.get(key), kind) for key, kind in kinds.items()):
        return False
    for name in protocol['models']:
        score = models.get(name)
        if not isinstance(score, dict) or not isinstance(score.get('per_class'), dict):
            return False
        value, drawn = score.get('value'), score.get('resampled')
        if not isinstance(value, int | float):
            return False
        if drawn is not None and (not isinstance(drawn, list) or len(drawn) != resamples):
            return False
    return True


def _untouched(stamps: Mapping[str, list | None]) -> bool:
    return all(_stamp(image) == stamp for image, stamp in stamps.items())


def _stamp(image: str) -> list[int] | None:
    """Size and time of a file; None for what is none."""
    try:
        found = os.stat(image)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def _read_json(file: Path) -> dict | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        value = json.loads(file.read_bytes())
        return value if isinstance(value, dict) else None
    return None
