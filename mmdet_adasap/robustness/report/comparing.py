# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models of several runs in one report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ProtocolMismatchError
from ..datasets.multi_view import CLEAN, Condition
from ..metrics.mpc import ALEXNET, alexnet
from ..results import build_models
from ..shifted_sets import build_shifts
from .cells import CellFiles, Place
from .checks import Node, read_json
from .reading import Results, parse_results
from .words import spoken
from .writing import write_files

SAME = ('format', 'metric', 'corruptions', 'severities', 'seed', 'mode', 'subset')
"""Settings that the figures of two runs must share to be compared."""
SAME_OF_DATASET = ('images', 'sha256')
SAME_VERSIONS = ('mmdet_adasap', 'numpy', 'opencv', 'pillow', 'mmdet', 'mmpretrain')
"""What makes the pixels and computes P."""
AGAINST_REFERENCE = ('mCE', 'relative_mCE', 'CE', 'relative_CE', 'difference')


class _Run(NamedTuple):
    """A results file: as it was read, as it was checked, and its models' names in the report."""

    root: dict
    results: Results
    names: dict[str, str]

    @property
    def file(self) -> Path:
        return self.results.file


def compare(files: Sequence[str | Path], out: str | Path) -> Path:
    """Write the report of the models of several runs, side by side.

    The reference is that of the first file: mCE and differences are computed anew against it.
    Their intervals need the cells beside each results.json, and the same resamples.

    Args:
        files (Sequence[str | Path]): Two or more results.json, or their folders.
        out (str | Path): Folder for report.html, report.md and report.csv; it is made.

    Returns:
        Path: report.html.

    Raises:
        FileNotFoundError: If there is no such results.json.
        MalformedResultsError: Naming the file and the key that robustness.py does not write so.
        ProtocolMismatchError: If the runs do not compare, naming the setting.
        ValueError: If there are less than two files, a run is not finished, or ``out`` is the
            folder of a run.
        OSError: If a file cannot be written.
    """
    runs = _read([Path(file) for file in files], Path(out))
    notes = _check(runs)
    paired = _same_left_out(runs) and _shared(runs, 'bootstrap')
    root = _merged(runs)
    results = parse_results(Node(runs[0].file, root))
    places = {
        new: Place(run.file.parent / 'cells', old)
        for run in runs
        for old, new in run.names.items()
    }
    cells = CellFiles(results, places, paired)
    _against_reference(root, results, cells)
    results = parse_results(Node(runs[0].file, root))
    Path(out).mkdir(parents=True, exist_ok=True)
    return write_files(results, CellFiles(results, places, paired), Path(out), tuple(notes))


def _read(files: Sequence[Path], out: Path) -> list[_Run]:
    files = [file / 'results.json' if file.is_dir() else file for file in files]
    if len(files) < 2:
        raise ValueError('name two or more results.json to compare')
    roots = [read_json(file) for file in files]
    read = [parse_results(root) for root in roots]
    for results in read:
        if not results.finished or results.missing:
            raise ValueError(
                f'{results.file} is not finished, and means over other cells would not compare: '
                f'run the same command again, which goes on with it'
            )
        if out.resolve() == results.file.parent.resolve():
            raise ValueError(f'{out} has the report of a run: name another folder to compare in')
    names = _distinct(read)
    return [_Run(root.value, *each) for root, *each in zip(roots, read, names, strict=True)]


def _distinct(read: Sequence[Results]) -> list[dict[str, str]]:
    """New names of the models of each file: those that two files use get the folder's name."""
    every = [name for results in read for name in results.models]
    taken, found = set(), []
    for results in read:
        own = {}
        folder = results.file.resolve().parent.name
        for name in results.models:
            new = name if every.count(name) == 1 else f'{name} ({folder})'
            number = 2
            while new in taken or (new != name and new in every):
                new = f'{name} ({folder}, {number})'
                number += 1
            taken.add(new)
            own[name] = new
        found.append(own)
    return found


def _check(runs: Sequence[_Run]) -> list[str]:
    """Refuse runs that do not compare; returns what differs and is only said."""
    first = runs[0].results
    for run in runs[1:]:
        for key, here, there in _pairs(first, run.results):
            if here != there:
                raise ProtocolMismatchError(
                    f'{run.file} does not compare with {first.file}: {key} is {_shown(there)} '
                    f'there and {_shown(here)} here; test both with the same settings'
                )
    notes = []
    for key in ('batch_size', 'device', 'published', 'versions'):
        if not _shared(runs, key):
            values = spoken([f'{_shown(run.results.protocol.get(key))}' for run in runs])
            notes.append(f'The runs differ in {key}: {values}.')
    if not _shared(runs, 'bootstrap'):
        notes.append(
            'The runs have other resamples, so that differences between them have no intervals.'
        )
    if not _same_left_out(runs):
        notes.append(
            'The runs had to leave out different images: their figures are of different ones, and '
            'differences between them have no intervals.'
        )
    return notes


def _pairs(first: Results, other: Results) -> list[tuple[str, Any, Any]]:
    """Each setting that must be the same, with its two values."""
    pairs = [(key, first.protocol.get(key), other.protocol.get(key)) for key in SAME]
    pairs = [(key, *map(_in_order, values)) for key, *values in pairs]
    settings = (
        ('published', ('type',)),
        ('dataset', SAME_OF_DATASET),
        ('versions', SAME_VERSIONS),
    )
    for key, names in settings:
        mine, theirs = (_mapping(results.protocol.get(key)) for results in (first, other))
        pairs += [(f'{key}.{name}', mine.get(name), theirs.get(name)) for name in names]
    mine, theirs = (_mapping(results.protocol.get('shifts')) for results in (first, other))
    for name in mine.keys() & theirs.keys():
        values = (_mapping(shifts[name]).get('sha256') for shifts in (mine, theirs))
        pairs.append((f'shifts.{name}.sha256', *values))
    return [*pairs, ('classes', first.classes, other.classes)]


def _same_left_out(runs: Sequence[_Run]) -> bool:
    left_out = [sorted(one.image for one in run.results.unreadable) for run in runs]
    return all(images == left_out[0] for images in left_out)


def _merged(runs: Sequence[_Run]) -> dict:
    """One root for all models; what refers to a reference is still that of each file."""
    first = runs[0]
    protocol = dict(first.results.protocol)
    protocol['models'] = {
        new: _mapping(run.results.protocol.get('models')).get(old)
        for run in runs
        for old, new in run.names.items()
    }
    unreadable = {one['image']: one for run in runs for one in run.root['unreadable']}
    return {
        **first.root,
        'protocol': protocol,
        'reference': first.names[first.results.reference],
        'mCE_reference': first.names.get(first.results.errors, first.results.errors),
        'models': {
            new: dict(run.root['models'][old]) for run in runs for old, new in run.names.items()
        },
        'unreadable': list(unreadable.values()),
    }


def _against_reference(root: dict, results: Results, files: CellFiles) -> None:
    """Compute anew, in ``root``, what refers to the reference."""
    published = alexnet if results.errors == ALEXNET else None
    keys = [None, *((c, s) for c in results.corruptions for s in results.severities)]
    cells = {
        CLEAN if key is None else Condition(*key): {
            'models': {name: files.sample(name, key) for name in results.models}
        }
        for key in keys
    }
    built = build_models(cells, results.models, list(cells), results.reference, False, published)
    for name, model in root['models'].items():
        model.update((key, built[name][key]) for key in AGAINST_REFERENCE)
    for kind in results.sets:
        tested = [name for name, model in results.models.items() if kind in model.shifts]
        there = {'models': {name: files.sample(name, (kind, 0)) for name in tested}}
        shifts = build_shifts(there, cells[CLEAN], tested, results.reference)
        for name in tested:
            of_model = root['models'][name]
            difference = {'difference': shifts[name]['difference']}
            of_model['shifts'] = {
                **of_model['shifts'],
                kind: {**of_model['shifts'][kind], **difference},
            }


def _shared(runs: Sequence[_Run], key: str) -> bool:
    """Whether all runs have the same value of a setting."""
    return all(run.results.protocol.get(key) == runs[0].results.protocol.get(key) for run in runs)


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, dict) else {}


def _in_order(value: Any) -> Any:
    """The order in which corruptions and severities were named changes no figure."""
    return sorted(value) if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return json.dumps(value)
