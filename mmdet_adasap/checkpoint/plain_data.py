# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What checkpoints of mmengine hold beside tensors: which names in a file stand for what.

A pickle names functions and gives them arguments. Those of numpy and mmengine do more than to
make data: ``dtype.__setstate__`` believes the flags of a file, so that an array of objects takes
bytes of the file for pointers, and ``HistoryBuffer.__setstate__`` writes into its class. So names
stand for the small classes below. They are the same whichever way a file is read, and
:func:`finished` makes the real objects of them.
"""

import codecs
import math
import pickle
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor

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
            raise pickle.UnpicklingError(f'a dtype {reprlib.repr(code)} is not one of numbers')
        try:
            self.dtype = np.dtype(code)
        except TypeError as error:
            raise pickle.UnpicklingError(f'there is no dtype {code}') from error

    def __setstate__(self, state: tuple) -> None:
        version, order, *rest = state
        if version != 3 or order not in ('<', '>', '|', '=') or tuple(rest) != PLAIN_STATE:
            raise pickle.UnpicklingError(
                f'the state of a dtype, {reprlib.repr(state)}, is not a plain one'
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
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise pickle.UnpicklingError('the shape of an array is not one of whole numbers')
    if len(data) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(
            f'an array of {shape} has {len(data)} bytes of {dtype.dtype.name}'
        )
    # A copy, since an array on the bytes of a file cannot be written to.
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order).copy(order)


def _reconstruct(subtype: type, shape: tuple, code: bytes) -> PickledArray:
    """Stand for numpy's function of that name, which makes an array that is filled later."""
    if subtype is not PickledArray:
        raise pickle.UnpicklingError(f'an array of {reprlib.repr(subtype)} is not data')
    return PickledArray()


def _scalar(dtype: PickledDType, data: bytes) -> np.generic:
    """Stand for numpy's function of that name, which makes one number."""
    return _array_of(dtype, data, ())[()]


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """Stand for ``_codecs.encode``, by which protocol 2 has bytes as text."""
    if encoding not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(
            f'bytes in the encoding {reprlib.repr(encoding)} are not known'
        )
    return codecs.encode(text, 'latin-1')


def _no_bytes() -> bytes:
    """Stand for ``bytes``, by which protocol 2 has those of an empty array."""
    return b''


class PickledHistory:
    """A HistoryBuffer, in the steps in which pickle makes one."""

    def __setstate__(self, state: dict) -> None:
        self.max_length = state['max_length']
        self.log, self.count = state['_log_history'], state['_count_history']
        if not isinstance(self.max_length, int):
            raise pickle.UnpicklingError('the length of a HistoryBuffer is not a whole number')

    def finish(self) -> HistoryBuffer:
        """Return the HistoryBuffer, with mmengine's own statistics."""
        buffer = HistoryBuffer(max_length=self.max_length)
        buffer._log_history, buffer._count_history = finished(self.log), finished(self.count)
        return buffer


class PickledOneCycle:
    """Stands for the scheduler, whose checkpoints name one of its functions."""


class PickledMethod:
    """A method that a checkpoint may name.

    Args:
        function (Callable): What it is.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function


METHODS = {
    PickledHistory: (HistoryBuffer, ('min', 'max', 'mean', 'current')),
    PickledOneCycle: (OneCycleParamScheduler, ('_annealing_cos', '_annealing_linear')),
}
"""Methods that checkpoints name, by the name builtins.getattr: the real one reaches anything."""


def _method(owner: type, name: str) -> PickledMethod:
    """Stand for getattr."""
    cls, names = METHODS.get(owner, (None, ()))
    if name not in names:
        raise pickle.UnpicklingError(f'{reprlib.repr(owner)}.{reprlib.repr(name)} is not data')
    return PickledMethod(getattr(cls, name))


NAMES = {
    'mmengine.logging.history_buffer.HistoryBuffer': PickledHistory,
    'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': PickledOneCycle,
    'builtins.getattr': _method,
    'builtins.frozenset': frozenset,
    'builtins.complex': complex,
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
BUILT_LATER = (PickledHistory, PickledDType, PickledArray)
"""Classes of objects that a pickle makes first and gives their content afterwards."""
PICKLED = (*BUILT_LATER, PickledMethod)
"""Classes of which :func:`finished` makes something else."""


def finished(value: object, seen: dict[int, tuple] | None = None) -> object:
    """Return what was read, with real objects in place of those of this file.

    Args:
        value (object): What a pickle was made into; containers are changed in place.
        seen (dict, optional): Of the call above, by identity: a part may be met twice.

    Returns:
        object: The same, what it stands for, or a new tuple.

    Raises:
        pickle.UnpicklingError: If it has no content, or is no data.
    """
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)][1]
    done = _finish(value) if isinstance(value, PICKLED) else value
    # With the value itself, whose identity another one could get if it were freed.
    seen[id(value)] = (value, done)
    if isinstance(value, dict):
        _check_plain(value)
        if type(value) is OrderedDict and vars(value):
            _check_metadata(vars(value))
        for key in value:
            value[key] = finished(value[key], seen)
    elif isinstance(value, list):
        value[:] = [finished(part, seen) for part in value]
    elif type(value) is tuple:
        done = tuple(finished(part, seen) for part in value)
        seen[id(value)] = (value, done)
    elif isinstance(value, set | frozenset):
        _check_plain(value)
    elif isinstance(value, Tensor) and value.layout is not torch.strided:
        # Indices beyond the size would be read and written.
        raise pickle.UnpicklingError('a sparse tensor is not data of a checkpoint')
    elif callable(value):
        raise pickle.UnpicklingError(f'{reprlib.repr(value)} is not data')
    return done


def _finish(value: object) -> object:
    """Make what stands for something into it."""
    if isinstance(value, PickledHistory):
        return value.finish()
    name = {PickledArray: 'array', PickledDType: 'dtype', PickledMethod: 'function'}[type(value)]
    found = getattr(value, name, None)
    if found is None:
        raise pickle.UnpicklingError('an array has no content')
    return found


def _check_plain(parts: Iterable) -> None:
    """Raise UnpicklingError if keys of a dict, or parts of a set, are not data as they are."""
    for part in parts:
        if isinstance(part, PICKLED) or callable(part):
            raise pickle.UnpicklingError(f'{reprlib.repr(part)} is no key, nor part of a set')


def _check_metadata(attributes: dict) -> None:
    """Raise UnpicklingError if a dict has other attributes than that of a state_dict.

    They would hide its methods.
    """
    if attributes.keys() != {'_metadata'} or not isinstance(attributes['_metadata'], dict):
        raise pickle.UnpicklingError('a dict with attributes is not data')
    finished(attributes['_metadata'])
