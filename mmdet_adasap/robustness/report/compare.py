# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models of several runs in one report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ProtocolMismatchError
from ..datasets import CLEAN, Condition
from ..metrics import ALEXNET, alexnet
from ..results import build_models
from ..shifted_sets import build_shifts
from .cells import CellFiles, CellLocation
from .json_node import JsonNode, read_json
from .parser import parse_results
from .schema import Results
from .text import join_names
from .writer import write_files

EQUAL_SETTINGS = ('format', 'metric', 'corruptions', 'severities', 'seed', 'mode', 'subset')
"""Settings that must be equal in two runs, or their numbers would not compare."""
EQUAL_OF_DATASET = ('images', 'sha256')
EQUAL_VERSIONS = ('mmdet_adasap', 'numpy', 'opencv', 'pillow', 'mmdet', 'mmpretrain')
"""Packages that decide about pixels and about P."""
REFERENCE_KEYS = ('mCE', 'relative_mCE', 'CE', 'relative_CE', 'difference')
"""Keys of a model whose values depend on the reference."""


class _Run(NamedTuple):
    """A results.json as plain data, the same parsed, and new names of its models."""

    root: dict
    results: Results
    names: dict[str, str]

    @property
    def file(self) -> Path:
        """The results.json."""
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
    runs = _read_runs([Path(file) for file in files], Path(out))
    _check_comparable(runs)
    notes = _difference_notes(runs)
    # Only the same resamples of the same images pair up.
    paired = _same_images(runs) and _share(runs, 'bootstrap')
    root = _merge(runs)
    results = parse_results(JsonNode(runs[0].file, root))
    locations = {
        new: CellLocation(run.file.parent / 'cells', old)
        for run in runs
        for old, new in run.names.items()
    }
    cells = CellFiles(results, locations, paired)
    _refer_to_first(root, results, cells)
    results = parse_results(JsonNode(runs[0].file, root))
    Path(out).mkdir(parents=True, exist_ok=True)
    return write_files(results, CellFiles(results, locations, paired), Path(out), tuple(notes))


def _read_runs(files: Sequence[Path], out: Path) -> list[_Run]:
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
    names = _unique_names(read)
    return [_Run(root.value, *each) for root, *each in zip(roots, read, names, strict=True)]


def _unique_names(read: Sequence[Results]) -> list[dict[str, str]]:
    """Return new names of the models of each file: those in two files get the folder's name."""
    every = [name for results in read for name in results.models]
    taken: set[str] = set()
    renamed = []
    for results in read:
        own = {}
        folder = results.file.resolve().parent.name
        for name in results.models:
            new = name if every.count(name) == 1 else f'{name} ({folder})'
            number = 2
            # Folders may share a name, and a model may be called as another one would be.
            while new in taken or (new != name and new in every):
                new = f'{name} ({folder}, {number})'
                number += 1
            taken.add(new)
            own[name] = new
        renamed.append(own)
    return renamed


def _check_comparable(runs: Sequence[_Run]) -> None:
    """Raise ProtocolMismatchError if the runs do not compare."""
    first = runs[0].results
    for run in runs[1:]:
        for key, here, there in _settings_to_compare(first, run.results):
            if here != there:
                raise ProtocolMismatchError(
                    f'{run.file} does not compare with {first.file}: {key} is {_as_json(there)} '
                    f'there and {_as_json(here)} here; test both with the same settings'
                )


def _difference_notes(runs: Sequence[_Run]) -> list[str]:
    """Return what differs between the runs, but does not keep them from being compared."""
    notes = []
    for key in ('batch_size', 'device', 'published', 'versions'):
        if not _share(runs, key):
            values = join_names([f'{_as_json(run.results.protocol.get(key))}' for run in runs])
            notes.append(f'The runs differ in {key}: {values}.')
    if _resampled_differently(runs):
        notes.append(
            'The runs do not have the same resamples, so that differences have no intervals.'
        )
    if not _same_images(runs):
        notes.append(
            'The runs had to leave out different images: their figures are of different ones, and '
            'differences have no intervals.'
        )
    return notes


def _settings_to_compare(first: Results, other: Results) -> list[tuple[str, Any, Any]]:
    """Return each setting that must be equal, with its two values."""
    pairs = [(key, first.protocol.get(key), other.protocol.get(key)) for key in EQUAL_SETTINGS]
    pairs = [(key, *map(_sorted, values)) for key, *values in pairs]
    settings = (
        ('published', ('type',)),
        ('dataset', EQUAL_OF_DATASET),
        ('versions', EQUAL_VERSIONS),
    )
    # Of protocols that are malformed here, what is no object counts as empty.
    for key, names in settings:
        mine, theirs = (_mapping(results.protocol.get(key)) for results in (first, other))
        pairs += [(f'{key}.{name}', mine.get(name), theirs.get(name)) for name in names]
    mine, theirs = (_mapping(results.protocol.get('shifts')) for results in (first, other))
    for name in mine.keys() & theirs.keys():
        values = (_mapping(shifts[name]).get('sha256') for shifts in (mine, theirs))
        pairs.append((f'shifts.{name}.sha256', *values))
    # Class numbers in the cells mean nothing without the same classes.
    return [*pairs, ('classes', first.classes, other.classes)]


def _resampled_differently(runs: Sequence[_Run]) -> bool:
    settings = [_mapping(run.results.protocol.get('bootstrap')) for run in runs]
    return not _share(runs, 'bootstrap') and any(one.get('resamples') for one in settings)


def _same_images(runs: Sequence[_Run]) -> bool:
    left_out = [sorted(one.image for one in run.results.unreadable) for run in runs]
    return all(images == left_out[0] for images in left_out)


def _merge(runs: Sequence[_Run]) -> dict:
    """Merge the models of all runs; values against a reference are still those of each run."""
    first = runs[0]
    protocol = dict(first.results.protocol)
    protocol['models'] = {
        new: _mapping(run.results.protocol.get('models')).get(old)
        for run in runs
        for old, new in run.names.items()
    }
    if _resampled_differently(runs):
        # Every value, or the report would call the resamples of one run those of all.
        shown = [_mapping(run.results.protocol.get('bootstrap')) for run in runs]
        keys = dict.fromkeys(key for one in shown for key in one)
        protocol['bootstrap'] = {
            key: ' or '.join(dict.fromkeys(str(one.get(key)) for one in shown)) for key in keys
        }
    unreadable = {one['image']: one for run in runs for one in run.root['unreadable']}
    return {
        **first.root,
        'protocol': protocol,
        'reference': first.names[first.results.reference],
        'mCE_reference': first.names.get(first.results.mce_reference, first.results.mce_reference),
        'models': {
            new: dict(run.root['models'][old]) for run in runs for old, new in run.names.items()
        },
        'unreadable': list(unreadable.values()),
    }


def _refer_to_first(root: dict, results: Results, files: CellFiles) -> None:
    """Compute the values against the reference anew, in ``root``."""
    published = alexnet if results.mce_reference == ALEXNET else None
    keys = [None, *((c, s) for c in results.corruptions for s in results.severities)]
    cells = {
        CLEAN if key is None else Condition(*key): {
            'models': {name: files.cell(name, key) for name in results.models}
        }
        for key in keys
    }
    built = build_models(cells, results.models, list(cells), results.reference, False, published)
    for name, model in root['models'].items():
        model.update((key, built[name][key]) for key in REFERENCE_KEYS)
    for shifted_set in results.shifted_sets:
        # Runs may have been tested on different other sets.
        tested = [
            name for name, model in results.models.items() if shifted_set in model.shifted_sets
        ]
        cell = {'models': {name: files.cell(name, (shifted_set, 0)) for name in tested}}
        shifts = build_shifts(cell, cells[CLEAN], tested, results.reference)
        for name in tested:
            # New objects: those of the file are shared with the runs.
            own = dict(root['models'][name]['shifts'])
            own[shifted_set] = {
                **own[shifted_set],
                'difference': shifts[name]['difference'],
            }
            root['models'][name]['shifts'] = own


def _share(runs: Sequence[_Run], key: str) -> bool:
    """Return whether all runs have the same value of a setting."""
    return all(run.results.protocol.get(key) == runs[0].results.protocol.get(key) for run in runs)


def _mapping(value: Any) -> Mapping:
    return value if isinstance(value, dict) else {}


def _sorted(value: Any) -> Any:
    """Sort corruptions and severities: the order that they were named in changes no number."""
    return sorted(value) if isinstance(value, list) else value


def _as_json(value: Any) -> str:
    return json.dumps(value)
