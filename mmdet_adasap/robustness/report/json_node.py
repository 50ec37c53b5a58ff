# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Values of a JSON file that anybody may have written, checked before they are used."""

import json
import math
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...errors import MalformedResultsError

T = TypeVar('T')
HINT = 'it was not written by robustness.py, or was changed since; run robustness.py again'


class JsonNode:
    """A value of a JSON file that knows its file and its key.

    Every method that returns a checked value raises MalformedResultsError if the value is of
    another kind; the error names the file and the key.

    Args:
        file (Path): The file, for messages.
        value (Any): The value.
        key (str): Its place in the file, as 'models.dense.clean'. Defaults to the whole file.
    """

    def __init__(self, file: Path, value: Any, key: str = '') -> None:
        self.file, self.value, self.key = file, value, key

    def error(self, reason: str) -> MalformedResultsError:
        """Return an error that names the file and the key."""
        where = f'{self.file}: {self.key}' if self.key else str(self.file)
        return MalformedResultsError(f'{where} {reason}: {HINT}')

    def __getitem__(self, name: str) -> 'JsonNode':
        mapping = self.mapping()
        key = self._key_of(name)
        if name not in mapping:
            raise JsonNode(self.file, None, key).error('is missing')
        return JsonNode(self.file, mapping[name], key)

    def get(self, name: str) -> 'JsonNode':
        """Return the node of a key; its value is None if the key is missing."""
        return JsonNode(self.file, self.mapping().get(name), self._key_of(name))

    def or_empty(self) -> 'JsonNode':
        """Return this node, with an empty object in place of null."""
        return JsonNode(self.file, {} if self.value is None else self.value, self.key)

    def mapping(self) -> dict:
        """Return the value as an object."""
        if not isinstance(self.value, Mapping):
            raise self.error(f'must be an object, not {_kind(self.value)}')
        return dict(self.value)

    def items(self) -> dict[str, 'JsonNode']:
        """Return the nodes of an object by their keys."""
        return {name: self[name] for name in self.mapping()}

    def elements(self) -> list['JsonNode']:
        """Return the nodes of an array."""
        if not isinstance(self.value, list):
            raise self.error(f'must be an array, not {_kind(self.value)}')
        return [
            JsonNode(self.file, value, f'{self.key}[{i}]') for i, value in enumerate(self.value)
        ]

    def text(self) -> str:
        """Return the value as text."""
        if not isinstance(self.value, str):
            raise self.error(f'must be text, not {_kind(self.value)}')
        return self.value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """Return the value as a finite number from ``low`` to ``high``."""
        # bool is a subclass of int in Python, but true is no number in JSON.
        if isinstance(self.value, bool) or not isinstance(self.value, Real):
            raise self.error(f'must be a number, not {_kind(self.value)}')
        # NaN fails every comparison, so "not (...)" rejects it as well. The bound 1e300 rejects
        # infinity, and integers that are too long for a float.
        if not (abs(self.value) < 1e300 and low <= self.value <= high):
            text = str(self.value)[:20]
            raise self.error(f'is {text}, not a number from {low:g} to {high:g}')
        return self.value

    def integer(self, low: float = -math.inf, high: float = math.inf) -> int:
        """Return the value as a whole number from ``low`` to ``high``."""
        if not isinstance(self.value, int):
            raise self.error(f'must be a whole number, not {_kind(self.value)}')
        return self.number(low, high)

    def fraction(self) -> float:
        """Return the value as a number from 0 to 1."""
        return self.number(0, 1)

    def fractions(self) -> np.ndarray:
        """Return an array of numbers from 0 to 1, float64 of shape (R,), R >= 1."""
        values = self.value if isinstance(self.value, list) else []
        # type() instead of isinstance(), because true and false are instances of int.
        if not values or not all(type(value) in (int, float) for value in values):
            raise self.error('must be an array of numbers')
        array = np.array(values, float)
        if not ((array >= 0) & (array <= 1)).all():
            raise self.error('has a number that is no fraction from 0 to 1')
        return array

    def flag(self) -> bool:
        """Return the value as a bool."""
        if not isinstance(self.value, bool):
            raise self.error(f'must be true or false, not {_kind(self.value)}')
        return self.value

    def optional(self, read: Callable[['JsonNode'], T]) -> T | None:
        """Return ``read(self)``, or None for null."""
        return None if self.value is None else read(self)

    def _key_of(self, name: str) -> str:
        return f'{self.key}.{name}' if self.key else name


def read_json(file: Path) -> JsonNode:
    """Read a JSON file.

    Args:
        file (Path): The file.

    Returns:
        JsonNode: Its root.

    Raises:
        FileNotFoundError: If it is not there.
        MalformedResultsError: If it is not JSON, or only the beginning of it.
    """
    try:
        return JsonNode(file, json.loads(file.read_bytes()))
    # Python's parser raises RecursionError for a file of nothing but opening brackets.
    except (ValueError, RecursionError) as error:
        raise MalformedResultsError(f'{file} is no whole JSON file ({error}): {HINT}') from error


def _kind(value: Any) -> str:
    kinds = {dict: 'an object', list: 'an array', str: 'text', bool: 'true or false'}
    return 'null' if value is None else kinds.get(type(value), 'a number')
