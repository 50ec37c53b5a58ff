# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Read a checkpoint as data, for torch before 2.6.

torch.load with weights_only does that since 2.6. Before, its list of what is data could not be
extended; and torch.load gives some files to others before it asks what is data: to torch.jit,
which runs them, or to tarfile. So the archive is read here, by Python's zipfile alone, and its
pickle with names that stand for data.
"""

import _compat_pickle
import collections
import pickle
import reprlib
import sys
import zipfile

import torch
from torch import Tensor, nn
from torch.storage import TypedStorage

from .plain_data import BUILT_LATER, NAMES

DTYPES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
}
"""Kinds of memory that torch.save writes, by name."""


def _tensor(
    storage: TypedStorage,
    offset: int,
    size: tuple,
    stride: tuple,
    requires_grad: bool = False,
    *_: object,
) -> Tensor:
    """Stand for torch's function that makes a tensor of memory; hooks are left out."""
    if not isinstance(storage, TypedStorage):
        raise pickle.UnpicklingError('a tensor is not made of memory')
    memory = storage._untyped_storage
    made = torch.empty(0, dtype=storage.dtype, device=memory.device)
    # Raises an error for what lies outside of the memory.
    made.set_(memory, offset, tuple(size), tuple(stride))
    return made.requires_grad_(bool(requires_grad))


def _parameter(data: Tensor, requires_grad: bool, *_: object) -> nn.Parameter:
    """Stand for torch's function that makes a parameter."""
    return nn.Parameter(data, bool(requires_grad))


DATA = {
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': collections.Counter,  # of milestones
    'builtins.set': set,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
    **{f'torch.{name}': dtype for name, dtype in DTYPES.items()},
} | NAMES
"""All names that a checkpoint may have, and what stands for them."""


class Unpickler(pickle._Unpickler):
    """Reads a pickle as data; in Python, whose steps can be replaced."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        """Return what a name stands for; refuse all that is not data."""
        if self.proto < 3:  # which has the names of Python 2
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f'{module}.{name}'
        if full not in DATA:
            raise pickle.UnpicklingError(f'{reprlib.repr(full)[1:-1]} is not data')
        return DATA[full]

    def load_build(self) -> None:
        """Give an object its state; classes and functions of the process have none."""
        state = self.stack.pop()
        value = self.stack[-1]
        if type(value) in BUILT_LATER:
            value.__setstate__(state)
        elif type(value) is collections.OrderedDict and isinstance(state, dict):
            vars(value).update(state)  # _metadata of a state_dict
        else:
            raise pickle.UnpicklingError(f'a state of a {type(value).__name__} is not data')

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitem(self) -> None:
        """Set one entry of a dict."""
        self._check_key(self.stack[-2])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        """Set entries of a dict."""
        for key in self.stack[::2]:
            self._check_key(key)
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    @staticmethod
    def _check_key(key: object) -> None:
        # A tuple of tuples of one another has no end of parts to be hashed.
        if isinstance(key, tuple):
            raise pickle.UnpicklingError('a tuple is no key of a dict')

    def load_refused(self) -> None:
        """Refuse what torch.save does not write."""
        raise pickle.UnpicklingError('a pickle has instructions that torch.save does not write')

    # The first take what they make from a table of the process; the last one takes memory before
    # it looks for what is to be in it.
    for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.BYTEARRAY8):
        dispatch[_code[0]] = load_refused
    del _code


def read_archive(filename: str, map_location: object) -> object:
    """Read a file that torch.save has written, as data.

    Args:
        filename (str): The file.
        map_location (object): Where tensors are loaded to, as ``torch.load`` takes it.

    Returns:
        object: What is in it.

    Raises:
        Exception: Whatever a file makes of it that is damaged, or holds more than data.
    """
    with open(filename, 'rb') as file:
        if file.read(4) != b'PK\3\4':
            raise pickle.UnpicklingError(
                'it is not of the format of torch 1.6 and later; load it with a torch of 2.6 or '
                'later and save it again'
            )
        with zipfile.ZipFile(file) as archive:
            return _Records(archive, map_location).read()


class _Records:
    """The pickle of an archive, and the memory of its tensors.

    Args:
        archive (zipfile.ZipFile): What torch.save has written.
        map_location (object): As ``torch.load`` takes it.
    """

    def __init__(self, archive: zipfile.ZipFile, map_location: object) -> None:
        self._archive = archive
        self._restore = torch.serialization._get_restore_location(map_location)
        self._prefix = archive.namelist()[0].partition('/')[0]
        self._memory: dict[str, TypedStorage] = {}

    def read(self) -> object:
        if f'{self._prefix}/byteorder' in self._archive.namelist():
            order = self._bytes('byteorder').decode()
            if order != sys.byteorder:
                raise pickle.UnpicklingError(f'its numbers are of {order} byte order')
        with self._open('data.pkl') as file:
            unpickler = Unpickler(file, encoding='utf-8')
            unpickler.persistent_load = self._load_memory
            return unpickler.load()

    def _open(self, name: str):
        info = self._archive.getinfo(f'{self._prefix}/{name}')
        # torch does not compress, and a small file that is compressed may fill the memory.
        if info.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError(f'{name} of the archive is compressed')
        return self._archive.open(info)

    def _bytes(self, name: str) -> bytearray:
        with self._open(name) as file:
            return bytearray(file.read())

    def _load_memory(self, key: object) -> TypedStorage:
        """Return the memory of a tensor."""
        kind, dtype, name, location, count = key
        if kind != 'storage' or not isinstance(dtype, torch.dtype) or not isinstance(name, str):
            raise pickle.UnpicklingError('something lies outside of the file')
        if name not in self._memory:
            data = self._bytes(f'data/{name}')
            memory = torch.UntypedStorage(0)
            if data:
                memory = torch.frombuffer(data, dtype=torch.uint8).untyped_storage()
            self._memory[name] = self._restore(memory, location)
        memory = self._memory[name]
        if memory.nbytes() != count * dtype.itemsize:
            raise pickle.UnpicklingError(
                f'data/{name} has {memory.nbytes()} bytes and not {count} numbers of {dtype}'
            )
        return TypedStorage(wrap_storage=memory, dtype=dtype, _internal=True)
