# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Plain data from a JSON file that anybody may have written, looked at before it is used."""

import json
import math
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...errors import MalformedResultsError

T = TypeVar('T')
LOOK = 'it was not written by robustness.py, or was changed since; run robustness.py again'


class Node:
    """A value of a JSON file that knows where it stands.

    Args:
        file (Path): The file, for messages.
        value (Any): The value.
        key (str): Where in the file, as 'models.dense.clean'. Defaults to the whole of it.
    """

    def __init__(self, file: Path, value: Any, key: str = '') -> None:
        self.file, self.value, self.key = file, value, key

    def refuse(self, reason: str) -> MalformedResultsError:
        """An error that names the file and the key."""
        where = f'{self.file}: {self.key}' if self.key else str(self.file)
        return MalformedResultsError(f'{where} {reason}: {LOOK}')

    def __getitem__(self, name: str) -> 'Node':
        """The value of a key that must be there."""
        found = self.mapping()
        inner = f'{self.key}.{name}' if self.key else name
        if name not in found:
            raise Node(self.file, None, inner).refuse('is missing')
        return Node(self.file, found[name], inner)

    def get(self, name: str) -> 'Node':
        """The value of a key, None if it is not there."""
        inner = f'{self.key}.{name}' if self.key else name
        return Node(self.file, self.mapping().get(name), inner)

    def mapping(self) -> dict:
        if not isinstance(self.value, Mapping):
            raise self.refuse(f'must be an object, not {_kind(self.value)}')
        return dict(self.value)

    def items(self) -> dict[str, 'Node']:
        """The values of an object by their keys."""
        return {name: self[name] for name in self.mapping()}

    def elements(self) -> list['Node']:
        """The values of an array."""
        if not isinstance(self.value, list):
            raise self.refuse(f'must be an array, not {_kind(self.value)}')
        return [Node(self.file, each, f'{self.key}[{i}]') for i, each in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.refuse(f'must be text, not {_kind(self.value)}')
        return self.value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number, from ``low`` to ``high``."""
        if isinstance(self.value, bool) or not isinstance(self.value, Real):
            raise self.refuse(f'must be a number, not {_kind(self.value)}')
        # Written so that NaN is refused as well; a whole number may be too long for a float.
        if not (abs(self.value) < 1e300 and low <= self.value <= high):
            text = str(self.value)[:20]
            raise self.refuse(f'is {text}, not a number from {low:g} to {high:g}')
        return self.value

    def integer(self, low: float = -math.inf, high: float = math.inf) -> int:
        if not isinstance(self.value, int):
            raise self.refuse(f'must be a whole number, not {_kind(self.value)}')
        return self.number(low, high)

    def fraction(self) -> float:
        return self.number(0, 1)

    def fractions(self) -> np.ndarray:
        """Fractions, (R,)."""
        values = self.value if isinstance(self.value, list) else []
        if not values or not all(type(each) in (int, float) for each in values):
            raise self.refuse('must be an array of numbers')
        found = np.array(values, float)
        if not ((found >= 0) & (found <= 1)).all():
            raise self.refuse('has a number that is no fraction from 0 to 1')
        return found

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refuse(f'must be true or false, not {_kind(self.value)}')
        return self.value

    def optional(self, read: Callable[['Node'], T]) -> T | None:
        """What ``read`` makes of it, or None for null."""
        return None if self.value is None else read(self)


def read_json(file: Path) -> Node:
    """Read a JSON file.

    Raises:
        FileNotFoundError: If it is not there.
        MalformedResultsError: If it is not JSON, or only the beginning of it.
    """
    try:
        return Node(file, json.loads(file.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise MalformedResultsError(f'{file} is no whole JSON file ({error}): {LOOK}') from error


def _kind(value: Any) -> str:
    kinds = {dict: 'an object', list: 'an array', str: 'text', bool: 'true or false'}
    return 'null' if value is None else kinds.get(type(value), 'a number')
