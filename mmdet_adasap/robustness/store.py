# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The folder of a run: one file for each condition, so that a stopped run goes on."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ProtocolMismatchError
from ..fileio import remove_partial_files, write_atomically
from .datasets import CLEAN, Condition
from .protocol import check_same_protocol, digest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

EXAMPLES = 'examples'


class ResultsFolder:
    """The folder into which a run writes each cell as soon as it is finished, and resumes from.

    Args:
        folder (str | Path): The folder; it is made if it does not exist.
        protocol (Mapping): What the figures depend on.

    Attributes:
        folder (Path): The folder.
        cells (dict[Condition, dict]): The cells that exist, as their files have them.

    Raises:
        ProtocolMismatchError: If the folder holds results of other settings.
        BlockingIOError: If another run is writing into the folder.
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
        self._check_protocol()
        self.cells = self._read_cells()

    def add(self, condition: Condition, cell: dict) -> None:
        """Write a cell.

        Args:
            condition (Condition): Its condition.
            cell (dict): As :func:`~mmdet_adasap.robustness.results.cell_to_dict` gives it.
        """
        stamps = {one['image']: _stamp(one['image']) for one in cell['unreadable']}
        text = json.dumps({'protocol': self._key, 'stamps': stamps, **cell}, allow_nan=False)
        text += '\n'
        write_atomically(cell_file(self._cells, *condition), text)
        # As it is after reading, so that a resumed run computes with the same values.
        self.cells[condition] = json.loads(text)

    def cache(self, name: str, value: dict) -> None:
        """Write something else that a resumed run does not have to compute again."""
        text = json.dumps({'protocol': self._key, 'value': value}) + '\n'
        write_atomically(self._cells / f'_{name}.json', text)

    def cached(self, name: str) -> dict | None:
        """Return what :meth:`cache` has written, if it was for this protocol."""
        found = _read_json(self._cells / f'_{name}.json')
        return found['value'] if found and found.get('protocol') == self._key else None

    def has_example(self, condition: Condition, number: int, view: int) -> bool:
        """Return whether the picture of an example exists."""
        return example_file(self.folder, *condition, number, view).is_file()

    def add_example(self, condition: Condition, number: int, view: int, jpeg: bytes) -> None:
        """Write the picture of an example, as models saw it, for a report.

        Args:
            condition (Condition): Its condition.
            number (int): Number of the image.
            view (int): Number of the pipeline that prepared it.
            jpeg (bytes): The picture.
        """
        file = example_file(self.folder, *condition, number, view)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, jpeg)

    def write(self, results: Mapping) -> None:
        """Write results.json."""
        write_atomically(self._file, json.dumps(results, indent=1, allow_nan=False) + '\n')

    def close(self) -> None:
        """Release the folder for other runs."""
        self._lock_file.close()

    def _lock(self) -> None:
        # flock ends with the process, however it ends; a file that only exists would stay.
        self._lock_file = (self._cells / '_lock').open('w')
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, f'another run writes into {self.folder}: wait for it, or use another'
            ) from error
        except OSError:  # some network file systems have no locks
            pass

    def _check_protocol(self) -> None:
        if not self._file.exists():
            return
        found = _read_json(self._file)
        if not isinstance((found or {}).get('protocol'), dict):
            if self._read_cells():  # results.json is torn, and is written anew from the cells
                return
            raise ProtocolMismatchError(
                f'{self._file} was not written by robustness.py: give another folder with --out'
            )
        check_same_protocol(str(self.folder), found['protocol'], self.protocol)

    def _read_cells(self) -> dict[Condition, dict]:
        cells = {}
        for file in sorted(self._cells.glob('[!_]*.json')):
            cell = _read_json(file)
            if not cell or cell.get('protocol') != self._key or not _is_cell(cell, self.protocol):
                continue  # of another run, or not complete
            condition = Condition(cell['corruption'], cell['severity'])
            # A cell with unreadable images is tested anew if one of their files has changed since.
            if file == cell_file(self._cells, *condition) and _unchanged(cell['stamps']):
                cells[condition] = cell
        return cells


def cell_file(cells: Path, corruption: str, severity: int) -> Path:
    """Return the file of a cell.

    Args:
        cells (Path): The folder of a run's cells.
        corruption (str): 'none' of clean images; of a shifted test set its name.
        severity (int): 0 of clean images and of a shifted test set.
    """
    clean = (corruption, severity) == CLEAN
    return cells / ('clean.json' if clean else f'{corruption}-{severity}.json')


def example_file(folder: Path, corruption: str, severity: int, number: int, view: int) -> Path:
    """Return the file of an example's picture, as models saw it.

    Args:
        folder (Path): Folder of the run.
        corruption (str): 'none' of clean images.
        severity (int): 0 of clean images.
        number (int): Number of the image.
        view (int): Number of the pipeline that prepared it, which several models may share.
    """
    return folder / EXAMPLES / f'{number}-{corruption}-{severity}-{view}.jpg'


def _is_cell(cell: Mapping, protocol: Mapping) -> bool:
    """Return whether a cell has all that figures are computed from."""
    models, resamples = cell.get('models'), protocol['bootstrap']['resamples']
    # A file that was edited, or written by another version, is not trusted.
    kinds = {'corruption': str, 'severity': int, 'seconds': dict, 'unreadable': list}
    kinds |= {'stamps': dict, 'models': dict}
    if not all(isinstance(cell.get(key), kind) for key, kind in kinds.items()):
        return False
    for name in protocol['models']:
        score = models.get(name)
        if not isinstance(score, dict) or not isinstance(score.get('per_class'), dict):
            return False
        value, resampled = score.get('value'), score.get('resampled')
        if not isinstance(value, int | float):
            return False
        if resampled is not None and (
            not isinstance(resampled, list) or len(resampled) != resamples
        ):
            return False
    return True


def _unchanged(stamps: Mapping[str, list | None]) -> bool:
    return all(_stamp(image) == stamp for image, stamp in stamps.items())


def _stamp(image: str) -> list[int] | None:
    """Return size and time of a file; None for an image that is no file."""
    try:
        status = os.stat(image)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _read_json(file: Path) -> dict | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        value = json.loads(file.read_bytes())
        return value if isinstance(value, dict) else None
    return None
