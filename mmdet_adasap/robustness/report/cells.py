# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The files of single cells: predictions in the examples, and P in every resample."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..datasets import CLEAN
from ..metrics import interval
from ..store import cell_file
from .json_node import JsonNode, read_json
from .parser import parse_prediction
from .schema import UNKNOWN, Boxes, ClassPrediction, Estimate, Results

CellKey = tuple[str, int] | None
"""Corruption and severity, or another test set and 0; None for clean images."""


class CellLocation(NamedTuple):
    """The folder of a model's cells, and the model's name in them."""

    folder: Path
    name: str


class CellFiles:
    """Files of cells, read when they are asked for.

    Args:
        results (Results): The results that the cells belong to.
        locations (dict[str, CellLocation], optional): The cells of each model. Defaults to cells/
            beside results.json, and the same names.
        paired (bool): Whether the resamples of all models are of the same images, so that
            differences have intervals. Defaults to True.

    Attributes:
        missing (set[str]): Names of files that were asked for and are missing, or are of another
            run than results.json.
    """

    def __init__(
        self,
        results: Results,
        locations: dict[str, CellLocation] | None = None,
        paired: bool = True,
    ) -> None:
        folder = results.file.parent / 'cells'
        self.results = results
        self.locations = locations or {name: CellLocation(folder, name) for name in results.models}
        self.paired = paired
        self.missing: set[str] = set()
        # The page, Markdown and CSV ask for the same files and differences. Caches of the
        # instance, not of the class, end with the report.
        self._read_file, self.difference = cache(_read_file), cache(self.difference)

    def examples(self, model: str, key: CellKey) -> dict[int, Boxes | ClassPrediction]:
        """Return the predictions of a model for the examples.

        Args:
            model (str): Name of the model.
            key (CellKey): The cell.

        Returns:
            dict[int, Boxes | ClassPrediction]: By the examples' numbers; empty without the file.

        Raises:
            MalformedResultsError: If the file is malformed.
        """
        node = self._model_node(model, key)
        if node is None:
            return {}
        predictions = {}
        truths = {example.number: example.truth for example in self.results.examples}
        for number, one in node['examples'].items().items():
            if not number.isdecimal():
                raise one.error('is for no number of an image')
            # null and {}: the run kept no prediction for this image.
            if one.value:
                prediction = predictions[int(number)] = parse_prediction(one, scored=True)
                truth = truths.get(int(number))
                if truth is not None and type(truth) is not type(prediction):
                    raise one.error('has boxes where there is a class, or the reverse')
        return predictions

    def difference(self, model: str, key: CellKey) -> Estimate:
        """Return P of a model minus P of the reference, with the interval of paired resamples.

        Args:
            model (str): Name of the model.
            key (CellKey): The cell.

        Returns:
            Estimate: Without a value if a cell is missing, without an interval if the resamples
            are.

        Raises:
            MalformedResultsError: If a file is malformed.
        """
        own, other = self._value(model, key), self._value(self.results.reference, key)
        if own is None or other is None:
            return UNKNOWN
        resampled = [self._resampled(name, key) for name in (model, self.results.reference)]
        sizes = {0 if each is None else len(each) for each in resampled}
        # Resamples pair up one by one; with fewer than two there is no standard error.
        if len(sizes) > 1 or min(sizes) < 2:
            return Estimate(own - other)
        return Estimate(own - other, *interval(resampled[0] - resampled[1], own - other))

    def cell(self, model: str, key: CellKey) -> dict:
        """Return P and its resamples, None if they are not known, as the file of a cell has them.

        Raises:
            MalformedResultsError: If the file is malformed.
        """
        resampled = self._resampled(model, key)
        return {'value': self._value(model, key), 'per_class': {}, 'resampled': resampled}

    def _resampled(self, model: str, key: CellKey) -> np.ndarray | None:
        """Return P in every resample, (R,)."""
        node = self._model_node(model, key) if self.paired else None
        if node is None or node['resampled'].value is None:
            return None
        return node['resampled'].fractions()

    def _value(self, model: str, key: CellKey) -> float | None:
        results = self.results.models[model]
        if key is None:
            return results.metrics['clean'].value
        name, severity = key
        if severity == 0:
            there = name in results.shifted_sets
            return results.shifted_sets[name].metrics['P'].value if there else None
        estimate = results.cells.get(name, {}).get(severity)
        return estimate and estimate.value

    def _model_node(self, model: str, key: CellKey) -> JsonNode | None:
        """Return the part of a cell that is about one model, if it is of the same run."""
        value = self._value(model, key)
        if value is None:
            return None
        location = self.locations[model]
        file = cell_file(location.folder, *(key or CLEAN))
        node = self._read_file(file)
        if node is None or location.name not in node['models'].mapping():
            self.missing.add(file.name)
            return None
        node = node['models'][location.name]
        # Both files hold the same double unrounded, so another run shows by any difference.
        if node['value'].fraction() != value:
            self.missing.add(file.name)
            return None
        return node


def _read_file(file: Path) -> JsonNode | None:
    return read_json(file) if file.is_file() else None
