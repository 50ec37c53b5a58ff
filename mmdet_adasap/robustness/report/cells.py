# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The files of single cells: detections in the examples, and P in every resample."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..metrics.bootstrap import interval
from .checks import Node, read_json
from .reading import Boxes, Figure, Guess, Results, read_found

Key = tuple[str, int] | None
"""Corruption and severity, or another test set and 0; None for clean images."""


class Place(NamedTuple):
    """Where the cells of a model are: in which folder, and under which name."""

    folder: Path
    name: str


class CellFiles:
    """Reads the files of cells as they are asked for.

    Args:
        results (Results): What they belong to.
        places (dict[str, Place], optional): For each model. Defaults to cells/ beside
            results.json, and the same names.
        paired (bool): Whether resamples of all models belong together. Defaults to True.

    Attributes:
        gone (set[str]): Names of files that were asked for and are not there, or are of another
            run than results.json.
    """

    def __init__(
        self, results: Results, places: dict[str, Place] | None = None, paired: bool = True
    ) -> None:
        folder = results.file.parent / 'cells'
        self.results = results
        self.places = places or {name: Place(folder, name) for name in results.models}
        self.paired = paired
        self.gone: set[str] = set()
        # Every part of a report asks for the same.
        self._file, self.difference = cache(self._read_file), cache(self.difference)

    def examples(self, model: str, key: Key) -> dict[int, Boxes | Guess]:
        """What a model found in the examples, by their numbers.

        Raises:
            MalformedResultsError: If the file is there, but not right.
        """
        node = self._of(model, key)
        if node is None:
            return {}
        found = {}
        truths = {example.number: example.truth for example in self.results.examples}
        for number, one in node['examples'].items().items():
            if not number.isdecimal():
                raise one.refuse('is for no number of an image')
            if one.value:
                found[int(number)] = read_found(one, scored=True)
                truth = truths.get(int(number))
                if truth is not None and type(truth) is not type(found[int(number)]):
                    raise one.refuse('has boxes where there is a class, or the reverse')
        return found

    def difference(self, model: str, key: Key) -> Figure:
        """P of a model minus that of the reference, with the interval of paired resamples.

        Raises:
            MalformedResultsError: If the file is there, but not right.
        """
        mine, theirs = self._value(model, key), self._value(self.results.reference, key)
        if mine is None or theirs is None:
            return Figure(None)
        draws = [self._draws(name, key) for name in (model, self.results.reference)]
        sizes = {0 if each is None else len(each) for each in draws}
        if len(sizes) > 1 or min(sizes) < 2:
            return Figure(mine - theirs)
        return Figure(mine - theirs, *interval(draws[0] - draws[1], mine - theirs))

    def sample(self, model: str, key: Key) -> dict:
        """P and its resamples, None where they are not known, as the file of a cell has them.

        Raises:
            MalformedResultsError: If the file is there, but not right.
        """
        draws = self._draws(model, key)
        return {'value': self._value(model, key), 'per_class': {}, 'resampled': draws}

    def _draws(self, model: str, key: Key) -> np.ndarray | None:
        node = self._of(model, key) if self.paired else None
        if node is None or node['resampled'].value is None:
            return None
        return node['resampled'].fractions()

    def _value(self, model: str, key: Key) -> float | None:
        found = self.results.models[model]
        if key is None:
            return found.figures['clean'].value
        name, severity = key
        if severity == 0:
            return found.shifts[name].figures['P'].value if name in found.shifts else None
        figure = found.cells.get(name, {}).get(severity)
        return figure and figure.value

    def _of(self, model: str, key: Key) -> Node | None:
        """The part of a cell that is about one model, if it is of the same run."""
        value = self._value(model, key)
        if value is None:
            return None
        place = self.places[model]
        file = place.folder / ('clean.json' if key is None else f'{key[0]}-{key[1]}.json')
        node = self._file(file)
        if node is None or place.name not in node['models'].mapping():
            self.gone.add(file.name)
            return None
        node = node['models'][place.name]
        if node['value'].fraction() != value:
            self.gone.add(file.name)
            return None
        return node

    @staticmethod
    def _read_file(file: Path) -> Node | None:
        return read_json(file) if file.is_file() else None
