# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A pickle that makes data alone, for torch before 2.6.

torch.load with weights_only does that since 2.6; before, its list of what is data could not be
extended, or what it made could not be given a state. There torch.load takes this module in the
place of Python's ``pickle``. What is not said here to be data is refused: a name that is not in
the list, a call of something else, a state for an object of another class.
"""

import _compat_pickle
import collections
import pickle
import tarfile
import zipfile

import torch

from .plain_data import BUILT_LATER, NAMES

OF_TORCH = {
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': collections.Counter,  # of milestones
    'builtins.set': set,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.serialization._get_layout': torch.serialization._get_layout,
    **{
        f'torch._utils.{name}': getattr(torch._utils, name)
        for name in (
            '_rebuild_parameter',
            '_rebuild_tensor',
            '_rebuild_tensor_v2',
            '_rebuild_sparse_tensor',
        )
    },
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}
"""What torch itself writes, by name: a part of the list of weights_only in torch 2.6. Storages are
not in it; torch.load takes their names before it asks here."""
DATA = OF_TORCH | NAMES


class Unpickler(pickle._Unpickler):
    """Reads a pickle as data; in Python, since each of the steps below is looked at."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        """Return what a name stands for; refuse all that is not data."""
        if self.proto < 3:  # which has the names of Python 2
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        full = f'{module}.{name}'
        if full not in DATA:
            raise pickle.UnpicklingError(f'{full} is not data')
        return DATA[full]

    def load_reduce(self) -> None:
        """Call a function of the list."""
        args = self.stack.pop()
        function = self.stack[-1]
        if not any(function is value for value in DATA.values()):
            raise pickle.UnpicklingError(f'a call of {function!r:.60} is not data')
        self.stack[-1] = function(*args)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        """Make an object whose state follows."""
        args, cls = self.stack.pop(), self.stack.pop()
        if args or not any(cls is one for one in BUILT_LATER):
            raise pickle.UnpicklingError(f'an object of {cls!r:.60} is not data')
        self.append(cls.__new__(cls))

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_build(self) -> None:
        """Give an object its state."""
        state = self.stack.pop()
        value = self.stack[-1]
        if type(value) in BUILT_LATER:
            value.__setstate__(state)
        elif type(value) is collections.OrderedDict and isinstance(state, dict):
            vars(value).update(state)  # _metadata of a state_dict
        else:
            raise pickle.UnpicklingError(f'a state of a {type(value).__name__} is not data')

    dispatch[pickle.BUILD[0]] = load_build

    def load_binpersid(self) -> None:
        """Take a tensor's memory from the file."""
        key = self.stack.pop()
        if not isinstance(key, tuple) or key[:1] not in (('storage',), (b'storage',)):
            raise pickle.UnpicklingError(f'{key!r:.60} is no memory of a tensor')
        self.append(self.persistent_load(key))

    dispatch[pickle.BINPERSID[0]] = load_binpersid

    def load_refused(self) -> None:
        """Refuse an instruction that torch.save does not write."""
        raise pickle.UnpicklingError('a pickle has instructions that torch.save does not write')

    # These make objects without the checks above, or take them from a table of the process.
    for _code in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
    ):
        dispatch[_code[0]] = load_refused
    del _code


def load(file, **kwargs) -> object:
    """Read a pickle as data, as ``pickle.load`` is called.

    Args:
        file (BinaryIO): At the place where a pickle begins.
        **kwargs: Those of ``pickle.load``, as ``encoding``.

    Raises:
        pickle.UnpicklingError: If it is more than data.
    """
    return Unpickler(file, **kwargs).load()


def refuse_programs(filename: str) -> None:
    """Refuse files that torch.load gives to others before it asks what is data.

    Raises:
        pickle.UnpicklingError: If it is a TorchScript program, or an archive of the format before
            torch 0.1.10, which is unpacked to the disk.
    """
    # Asked of both, since a file may be one to torch and the other one to Python.
    if tarfile.is_tarfile(filename):
        raise pickle.UnpicklingError('it is a tar archive')
    if zipfile.is_zipfile(filename):
        with zipfile.ZipFile(filename) as archive:
            if any(name.rpartition('/')[2] == 'constants.pkl' for name in archive.namelist()):
                raise pickle.UnpicklingError('it is a TorchScript program')
