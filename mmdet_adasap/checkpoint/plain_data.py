# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What checkpoints of mmengine hold beside tensors: which names in a file stand for what.

A pickle names functions and gives them arguments. Those of numpy do more than to make arrays:
``dtype.__setstate__`` believes the flags of a file, and an array of objects with the flags of
plain numbers takes bytes of the file for pointers. So names stand for the small classes below,
which make arrays of numbers alone. They are the same whichever way a file is read.
"""

import codecs
import math
import pickle
from collections.abc import Callable

import numpy as np
from mmengine.logging.history_buffer import HistoryBuffer

NUMBERS = 'biufc'
"""Kinds of dtype that an array may have: all of numpy's whose bytes are just numbers."""
PLAIN_STATE = (None, None, None, -1, -1, 0)
"""What a pickled dtype of numbers says of fields, sizes and flags, after version and byte order:
nothing (numpy, ``dtype.__reduce__``)."""


class PickledDType:
    """A dtype of numbers, in the steps in which pickle makes one.

    Args:
        code (str): As 'f8'.
        align (bool): As numpy writes it; means nothing for numbers.
        copy (bool): The same.

    Raises:
        pickle.UnpicklingError: If it is another dtype.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or code[:1] not in NUMBERS or not code[1:].isdigit():
            raise pickle.UnpicklingError(f'a dtype {code!r:.40} is not one of numbers')
        try:
            self.dtype = np.dtype(code)
        except TypeError as error:
            raise pickle.UnpicklingError(f'there is no dtype {code!r:.40}') from error

    def __setstate__(self, state: tuple) -> None:
        version, order, *rest = state
        if version != 3 or order not in ('<', '>', '|', '=') or tuple(rest) != PLAIN_STATE:
            raise pickle.UnpicklingError(
                f'the state of a dtype, {state!r:.80}, is not a plain one'
            )
        if self.dtype.itemsize > 1:
            self.dtype = self.dtype.newbyteorder(order)


class PickledArray:
    """An array of numbers, in the steps in which pickle makes one; ``finished`` has the array."""

    array = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _array_of(dtype, data, shape, 'F' if fortran else 'C')


def _array_of(dtype: object, data: object, shape: tuple[int, ...], order: str = 'C') -> np.ndarray:
    """Make an array of a file's bytes.

    Raises:
        pickle.UnpicklingError: If they are not as many numbers as the shape has places.
    """
    if not isinstance(dtype, PickledDType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError('an array is not made of the bytes of numbers')
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(
            f'an array of {shape} has {len(data)} bytes of {dtype.dtype.name}'
        )
    # A copy, since an array on the bytes of a file cannot be written to.
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order).copy(order)


def _reconstruct(subtype: type, shape: tuple, code: bytes) -> PickledArray:
    """Stand for numpy's function of that name, which makes an array that is filled later."""
    if subtype is not PickledArray:
        raise pickle.UnpicklingError(f'an array of class {subtype!r:.40} is not data')
    return PickledArray()


def _scalar(dtype: PickledDType, data: bytes) -> np.generic:
    """Stand for numpy's function of that name, which makes one number."""
    return _array_of(dtype, data, ())[()]


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """Stand for ``_codecs.encode``, by which protocol 2 has bytes as text."""
    if encoding not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'bytes in the encoding {encoding!r:.40} are not known')
    return codecs.encode(text, 'latin-1')


def _no_bytes() -> bytes:
    """Stand for ``bytes``, by which protocol 2 has those of an empty array."""
    return b''


def _history_method(owner: type, name: str) -> Callable:
    """Do what checkpoints need getattr for: name a HistoryBuffer's method of a statistic.

    They have it by the name builtins.getattr, and the real one reaches anything.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'{owner!r:.80}.{name:.40} is not data')
    return getattr(owner, name)


NAMES = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    'builtins.getattr': _history_method,
    'numpy.dtype': PickledDType,
    'numpy.ndarray': PickledArray,
    # numpy 2 has moved the module; files of both are read by both.
    **{
        f'numpy.{core}.multiarray.{name}': function
        for core in ('core', '_core')
        for name, function in (('_reconstruct', _reconstruct), ('scalar', _scalar))
    },
    '_codecs.encode': _encode,
    'builtins.bytes': _no_bytes,
}
"""Names in a checkpoint, and what stands for them. In mmengine's own list is the real getattr, by
which a file can reach, and overwrite, all of Python."""
BUILT_LATER = (HistoryBuffer, PickledDType, PickledArray)
"""Classes of objects that a pickle makes first and gives their content afterwards."""


def finished(value: object, seen: dict[int, tuple] | None = None) -> object:
    """Return what was read, with arrays in place of :class:`PickledArray`.

    Args:
        value (object): What a pickle was made into; containers are changed in place.
        seen (dict, optional): Of the call above, by identity: a part may be met twice.

    Returns:
        object: The same, an array, a dtype, or a new tuple.

    Raises:
        pickle.UnpicklingError: If an array has not got its content.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)][1]
    done = value
    if isinstance(value, PickledArray):
        if value.array is None:
            raise pickle.UnpicklingError('an array has no content')
        done = value.array
    elif isinstance(value, PickledDType):
        done = value.dtype
    # With the value itself, whose identity another one could get if it were freed.
    seen[id(value)] = (value, done)
    if isinstance(value, dict):
        for key in value:
            value[key] = finished(value[key], seen)
    elif isinstance(value, list):
        value[:] = [finished(part, seen) for part in value]
    elif type(value) is tuple:
        done = tuple(finished(part, seen) for part in value)
        seen[id(value)] = (value, done)
    elif isinstance(value, HistoryBuffer):
        finished(vars(value), seen)
    return done
