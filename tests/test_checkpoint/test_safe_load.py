# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Checkpoints are read as data, by torch's own restricted pickle and by ours."""

import copyreg
import io
import os
import pickle
import tarfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmdet_adasap.checkpoint import plain_data, safe_load
from mmdet_adasap.checkpoint.restricted_pickle import Unpickler
from mmdet_adasap.checkpoint.safe_load import read_checkpoint, resume_advice
from mmdet_adasap.errors import UnreadableCheckpointError

RAN = 'mmdet_adasap_test_ran'
"""A variable of the environment that hostile files set."""


@pytest.fixture(params=['torch', 'ours'])
def reader(request, monkeypatch) -> None:
    """Read by torch's restricted pickle, if it has one that takes names; then by ours."""
    if request.param == 'torch' and not safe_load.TORCH_TAKES_NAMES:
        pytest.skip('torch before 2.6 takes no names of what is data')
    monkeypatch.setattr(safe_load, 'TORCH_TAKES_NAMES', request.param == 'torch')


def checkpoint() -> dict:
    """One of each kind of data that mmengine writes."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    weights = OrderedDict(w=torch.arange(6.0).reshape(2, 3).bfloat16(), n=torch.tensor(3))
    weights._metadata = OrderedDict({'': dict(version=1)})
    moments = torch.randn(2, 3)
    return dict(
        meta=dict(epoch=1, size=torch.Size([2]), dtype=torch.float16, device=torch.device('cpu')),
        state_dict=weights,
        optimizer=dict(state={0: dict(exp_avg=moments, view=moments[1:, ::2])}),
        param_schedulers=[
            dict(milestones=Counter({4: 1}), gamma=0.1, kinds={1, 2}, fixed=frozenset({3})),
            dict(anneal_func=OneCycleParamScheduler._annealing_cos, z=1 + 2j),
        ],
        message_hub=dict(
            log_scalars=OrderedDict(loss=history, again=history),
            runtime_info=dict(
                best=np.float64(0.5),
                seen=np.int64(7),
                ok=np.bool_(True),
                state=('MT19937', np.arange(4, dtype=np.uint32), 624, 0, 0.0),
                big=np.arange(3, dtype='>i4'),
                columns=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
                empty=np.zeros((0, 4), np.float32),
                dtype=np.dtype('f4'),
            ),
        ),
    )


def flat(value: object, name: str = '') -> dict:
    """All that is in nested containers, by path."""
    if isinstance(value, HistoryBuffer):
        value = {k: v for k, v in vars(value).items() if 'statistics_methods' not in k}
    if isinstance(value, dict) and not isinstance(value, Counter):
        parts = value.items()
    elif isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        parts = enumerate(value)
    else:
        return {name: value}
    return {k: v for key, part in parts for k, v in flat(part, f'{name}.{key}').items()}


@pytest.mark.parametrize('new_format', [True, False])
def test_all_that_mmengine_writes(reader, tmp_path, new_format):
    saved = checkpoint()
    file = tmp_path / 'whole.pth'
    torch.save(saved, file, _use_new_zipfile_serialization=new_format)
    if not new_format and not safe_load.TORCH_TAKES_NAMES:
        with pytest.raises(UnreadableCheckpointError, match=r'not of the format of torch 1\.6'):
            read_checkpoint(str(file))
        return
    found = read_checkpoint(str(file))
    hub = found['message_hub']['log_scalars']
    assert hub['loss'] is hub['again']
    assert hub['loss'].statistics('mean', 2) == 0.375
    hub['loss'].update(1.0)  # arrays can be written to
    assert found['state_dict']._metadata == saved['state_dict']._metadata
    memory = found['optimizer']['state'][0]
    assert memory['view'].untyped_storage()._cdata == memory['exp_avg'].untyped_storage()._cdata
    before, after = flat(saved), flat(read_checkpoint(str(file)))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert type(after[name]) is type(value), name
        if isinstance(value, torch.Tensor):
            assert torch.equal(after[name], value), name
            assert after[name].dtype == value.dtype
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[name], value)
            assert (after[name].dtype, after[name].strides) == (value.dtype, value.strides)
        else:
            assert after[name] == value, name


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_numpy_1_and_2(reader, tmp_path, core):
    """Their functions have moved from numpy.core to numpy._core."""
    array = np.arange(3.0)
    data = pickle.dumps(dict(a=array, b=array[1]), protocol=2)
    for name in (b'numpy.core', b'numpy._core'):
        data = data.replace(b'c' + name + b'.multiarray', f'cnumpy.{core}.multiarray'.encode())
    found = read_checkpoint(zipped(tmp_path, with_meta(data[2:-1])))['meta']
    assert found['a'].tolist() == [0, 1, 2]
    assert found['b'] == 1


def zipped(folder: Path, instructions: bytes) -> str:
    """A checkpoint of some instructions of pickle."""
    torch.save({}, folder / 'empty.pth')
    file = folder / 'hostile.pth'
    with zipfile.ZipFile(folder / 'empty.pth') as old, zipfile.ZipFile(file, 'w') as new:
        for info in old.infolist():
            is_pickle = info.filename.endswith('data.pkl')
            new.writestr(info.filename, instructions if is_pickle else old.read(info))
    return str(file)


def before_1_6(folder: Path, instructions: bytes) -> str:
    """The same in the format of torch before 1.6."""
    torch.save({}, folder / 'empty.pth', _use_new_zipfile_serialization=False)
    data = (folder / 'empty.pth').read_bytes()
    whole = io.BytesIO(data)
    for _ in range(3):  # magic number, version, and the system
        pickle.load(whole)
    start = whole.tell()
    pickle.load(whole)
    file = folder / 'hostile.pth'
    file.write_bytes(data[:start] + instructions + data[whole.tell() :])
    return str(file)


# Instructions for what hostile files do.
P = pickle
PUT_ENV = b'cos\nputenv\n'
HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
GETATTR = b'c__builtin__\ngetattr\n'


def text(value: str) -> bytes:
    return P.BINUNICODE + len(value).to_bytes(4, 'little') + value.encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + P.MARK + b''.join(arguments) + P.TUPLE + P.REDUCE


def number(value: int) -> bytes:
    return P.BININT + value.to_bytes(4, 'little', signed=True)


def state(*parts: bytes) -> bytes:
    return P.MARK + b''.join(parts) + P.TUPLE + P.BUILD


def latin(data: bytes) -> bytes:
    return call(b'c_codecs\nencode\n', text(data.decode('latin1')), text('latin1'))


def dtype(code: str, flags: int = 0, itemsize: int = -1) -> bytes:
    made = call(b'cnumpy\ndtype\n', text(code), P.NEWFALSE, P.NEWTRUE)
    last = number(itemsize), number(itemsize), number(flags)
    return made + state(number(3), text('<'), P.NONE, P.NONE, P.NONE, *last)


def array(
    dtype: bytes,
    shape: int,
    data: bytes,
    subtype: bytes = b'cnumpy\nndarray\n',
    shape_of: bytes | None = None,
) -> bytes:
    made = call(
        b'cnumpy.core.multiarray\n_reconstruct\n',
        subtype,
        P.MARK + number(0) + P.TUPLE,
        latin(b'b'),
    )
    shape_of = shape_of or P.MARK + number(shape) + P.TUPLE
    return made + state(number(1), shape_of, dtype, P.NEWFALSE, data)


RUN = P.MARK + text(RAN) + text('1') + P.TUPLE
STATISTIC = call(GETATTR, HISTORY, text('mean'))
ENTRY = P.EMPTY_DICT + text('mean') + number(1) + P.SETITEM
# HistoryBuffer.register_statistics(HistoryBuffer.update), which changes a dict of the class.
REGISTER = call(
    call(GETATTR, HISTORY, text('register_statistics')), call(GETATTR, HISTORY, text('update'))
)
# A tuple of twice a tuple of twice a tuple ...: 2^34 parts, for whoever looks at all of them.
ENDLESS = P.NONE + P.TUPLE1 + 34 * (P.DUP + P.TUPLE2)
POINTERS = latin(bytes(range(8)))
HOSTILE = {
    'a call': PUT_ENV + RUN + P.REDUCE,
    'a call by the name that Python 2 has': call(b'c__builtin__\neval\n', text('1 + 1')),
    'a call by INST': P.MARK + text(RAN) + text('1') + P.INST + b'os\nputenv\n',
    'a call by OBJ': P.MARK + PUT_ENV + text(RAN) + text('1') + P.OBJ,
    'a name with dots': P.PROTO
    + b'\4'
    + text('mmengine.logging.history_buffer')
    + text('HistoryBuffer.update.__globals__')
    + P.STACK_GLOBAL,
    'something that lies outside': P.PERSID + b'outside\n',
    'a module that lies outside': P.MARK
    + (text('module') + HISTORY + text('f') + text('g'))
    + P.TUPLE
    + P.BINPERSID,
    'Python by way of a method': call(GETATTR, HISTORY, text('__init__')),
    'Python by way of another object': call(GETATTR, STATISTIC, text('__globals__')),
    'a call of what was reached': REGISTER,
    'an attribute of a class': HISTORY + state(P.NONE, ENTRY),
    'an attribute of a function': STATISTIC + state(P.NONE, ENTRY),
    'an entry of a class': HISTORY + text('mean') + text('x') + P.SETITEM,
    # numpy believes the flags, and takes bytes of the file for pointers.
    'objects with the flags of numbers': array(dtype('O8'), 1, POINTERS),
    'numbers with the flags of objects': array(dtype('f8', flags=63), 1, POINTERS),
    'numbers of another size': array(dtype('f8', itemsize=1), 1, POINTERS),
    'a dtype with fields': array(dtype('V8'), 1, POINTERS),
    'text': array(dtype('U2'), 1, POINTERS),
    'an array that is larger than its data': array(dtype('f8'), 2**30, POINTERS),
    'an array of a class': array(dtype('f8'), 1, POINTERS, subtype=HISTORY),
    'an array without content': call(
        b'cnumpy.core.multiarray\n_reconstruct\n',
        b'cnumpy\nndarray\n',
        P.MARK + number(0) + P.TUPLE,
        latin(b'b'),
    ),
    'one number of an object': call(
        b'cnumpy.core.multiarray\nscalar\n', dtype('O8'), latin(b'\1' * 8)
    ),
    'a view beyond its tensor': call(
        b'ctorch._utils\n_rebuild_tensor_v2\n',
        (
            P.MARK
            + (text('storage') + b'ctorch\nFloatStorage\n' + text('0') + text('cpu') + number(1))
            + P.TUPLE
            + P.BINPERSID
        ),
        number(2**20),
        P.MARK + number(8) + P.TUPLE,
        P.MARK + number(1) + P.TUPLE,
        P.NEWFALSE,
        call(b'ccollections\nOrderedDict\n'),
    ),
    'a sparse tensor': call(
        b'ctorch._utils\n_rebuild_sparse_tensor\n',
        b'ctorch.serialization\n_get_layout\n' + text('torch.sparse_coo') + P.TUPLE1 + P.REDUCE,
        P.EMPTY_TUPLE,
    ),
    'a shape that is none': array(
        dtype('f8'), 1, POINTERS, shape_of=P.MARK + text('a') + P.LONG1 + b'\5\0\0\0\0\2' + P.TUPLE
    ),
    'a dict whose methods are hidden': call(b'ccollections\nOrderedDict\n')
    + P.EMPTY_DICT
    + text('items')
    + number(1)
    + P.SETITEM
    + P.BUILD,
    'a statistic of ones own': HISTORY
    + P.EMPTY_TUPLE
    + P.NEWOBJ
    + P.EMPTY_DICT
    + text('statistics_methods')
    + ENTRY
    + P.SETITEM
    + P.BUILD,
    'a class as data': HISTORY,
    'a function as data': GETATTR,
    'a class as a key': P.EMPTY_DICT + HISTORY + number(1) + P.SETITEM,
    'a text of a terminal': b'ca\x1b[1m\nb' + b'b' * 1000 + b'\n',
    'nested beyond a text': HISTORY
    + P.EMPTY_TUPLE
    + b''.join(P.MEMOIZE + b'' + P.DUP + P.TUPLE2 for _ in range(40)).replace(P.MEMOIZE, b'')
    + P.BUILD,
    'a state with no end of text': call(b'cnumpy\ndtype\n', text('f8'))
    + state(number(3), text('<'), ENDLESS),
    'a partial function': call(b'cfunctools\npartial\n', PUT_ENV, text(RAN)),
    'no end': text('meta'),
}


def with_meta(instructions: bytes) -> bytes:
    """A checkpoint's pickle: what the instructions make is its meta."""
    return P.PROTO + b'\2' + P.EMPTY_DICT + text('meta') + instructions + P.SETITEM + P.STOP


def of_class() -> tuple[dict, dict]:
    """What a hostile file may change of the one class of mmengine that it can name."""
    return dict(vars(HistoryBuffer)), dict(HistoryBuffer._statistics_methods)


@pytest.mark.parametrize('file_of', [zipped, before_1_6])
@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_files(reader, tmp_path, kind, file_of: Callable):
    instructions = with_meta(HOSTILE[kind])
    if kind == 'no end':
        instructions = instructions[:-1]
    before = of_class()
    file = file_of(tmp_path, instructions)
    with pytest.raises(UnreadableCheckpointError, match='is damaged or holds more than data') as e:
        read_checkpoint(file)
    assert '\n' not in str(e.value)
    resume_advice(str(tmp_path))  # which looks into neighbours of a file that is missing
    assert of_class() == before
    # What putenv sets is seen by processes alone.
    assert os.popen(f'echo "${RAN}"').read() == '\n'


EXTENSION = 0xF0  # of those that are for private use
GUARDS = {
    'BUILD': (P.BUILD, GETATTR + state(P.NONE, ENTRY) + P.POP + P.NONE),
    'EXT1': (P.EXT1, P.EXT1 + bytes([EXTENSION]) + P.EMPTY_TUPLE + P.REDUCE),
}
"""Instructions that our pickle looks at, and a file that each would otherwise let through."""


@pytest.mark.parametrize('name', GUARDS)
def test_each_guard_of_our_pickle_is_needed(name, tmp_path, monkeypatch):
    code, instructions = GUARDS[name]
    monkeypatch.setattr(safe_load, 'TORCH_TAKES_NAMES', False)
    # What the two files do: an attribute of a function of ours, and a call.
    monkeypatch.setattr(plain_data._method, 'mean', None, raising=False)
    monkeypatch.setitem(copyreg._inverted_registry, EXTENSION, ('os', 'getpid'))
    monkeypatch.setitem(copyreg._extension_cache, EXTENSION, os.getpid)
    file = zipped(tmp_path, with_meta(instructions))
    with pytest.raises(UnreadableCheckpointError, match='is damaged or holds more than data'):
        read_checkpoint(file)
    monkeypatch.setitem(Unpickler.dispatch, code[0], pickle._Unpickler.dispatch[code[0]])
    read_checkpoint(file)


def test_the_instructions_run_in_a_pickle_that_is_not_restricted(tmp_path):
    """So that what is refused above is not refused for being wrong."""
    assert pickle.loads(with_meta(HOSTILE['a call by the name that Python 2 has'])) == {'meta': 2}
    harmless = array(dtype('f8'), 1, latin(np.float64(7).tobytes()))
    assert pickle.loads(with_meta(harmless))['meta'].tolist() == [7]
    assert read_checkpoint(zipped(tmp_path, with_meta(harmless)))['meta'].tolist() == [7]


def rewritten(folder: Path, change: Callable[[str, bytes], bytes], **how: object) -> str:
    """A checkpoint of one tensor, with other records."""
    torch.save(dict(meta=None, state_dict=dict(w=torch.arange(64.0))), folder / 'whole.pth')
    file = folder / 'rewritten.pth'
    with zipfile.ZipFile(folder / 'whole.pth') as old, zipfile.ZipFile(file, 'w', **how) as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return str(file)


def test_archives_that_are_none(tmp_path, monkeypatch):
    """torch.load gives a program to torch.jit, which runs it, and unpacks a tar to the disk."""
    monkeypatch.setattr(safe_load, 'TORCH_TAKES_NAMES', False)
    program = tmp_path / 'program.pth'
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(program))
    tar = tmp_path / 'archive.pth'
    with tarfile.open(tar, 'w') as archive:
        link = tarfile.TarInfo('storages')
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / 'elsewhere')
        archive.addfile(link)
    both = tmp_path / 'both.pth'
    torch.save({}, tmp_path / 'empty.pth')
    both.write_bytes(tar.read_bytes() + (tmp_path / 'empty.pth').read_bytes())

    def short(name: str, data: bytes) -> bytes:
        return data[:-4] if '/data/' in name else data

    def big(name: str, data: bytes) -> bytes:
        return b'big' if name.endswith('byteorder') else data

    files = [program, tar, both, rewritten(tmp_path, short)]
    for file in files:
        with pytest.raises(UnreadableCheckpointError, match='is damaged or holds more than data'):
            read_checkpoint(str(file))
    compressed = rewritten(tmp_path, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnreadableCheckpointError, match='is compressed'):
        read_checkpoint(compressed)
    if 'big' in Path(rewritten(tmp_path, big)).read_bytes().decode('latin1'):
        with pytest.raises(UnreadableCheckpointError, match='byte order'):
            read_checkpoint(str(tmp_path / 'rewritten.pth'))


def test_a_key_with_no_end_of_parts(tmp_path, monkeypatch):
    """Its hash would take an hour; torch's own pickle takes it."""
    monkeypatch.setattr(safe_load, 'TORCH_TAKES_NAMES', False)
    entry = P.EMPTY_DICT + ENDLESS + P.NONE + P.SETITEM
    entries = P.EMPTY_DICT + P.MARK + ENDLESS + P.NONE + P.SETITEMS
    for instructions in (entry, entries):
        with pytest.raises(UnreadableCheckpointError, match='a tuple is no key'):
            read_checkpoint(zipped(tmp_path, with_meta(instructions)))


def test_where_tensors_are_loaded_to(reader, tmp_path):
    file = tmp_path / 'whole.pth'
    torch.save(dict(meta={}, state_dict=dict(w=torch.ones(3))), file)
    asked = []
    for where in (
        'cpu',
        torch.device('cpu'),
        None,
        {'cpu': 'cpu'},
        lambda s, place: asked.append(place),
    ):
        found = read_checkpoint(str(file), where)['state_dict']['w']
        assert found.tolist() == [1, 1, 1]
    assert asked == ['cpu']
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"cannot be loaded to map_location='cuda:0'"):
            read_checkpoint(str(file), 'cuda:0')


@pytest.mark.parametrize(
    'meta', [dict(dataset_meta=torch.ones(2)), dict(dataset_meta=dict(classes=torch.ones(2)))]
)
def test_meta_that_has_no_truth(reader, tmp_path, meta):
    torch.save(dict(meta=meta, state_dict={}), tmp_path / 'odd.pth')
    with pytest.raises(UnreadableCheckpointError, match=r'its meta\.dataset_meta'):
        read_checkpoint(str(tmp_path / 'odd.pth'))


def test_threads_share_the_list_of_what_is_safe(tmp_path):
    file = tmp_path / 'whole.pth'
    torch.save(checkpoint(), file)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: read_checkpoint(str(file)), range(40)))
    assert len(found) == 40
    if safe_load.TORCH_TAKES_NAMES:
        ours = set(plain_data.NAMES.values())
        assert not any(
            isinstance(one, tuple) and one[0] in ours
            for one in torch.serialization.get_safe_globals()
        )


@pytest.mark.skipif(not safe_load.TORCH_TAKES_NAMES, reason='torch before 2.6 has no such list')
def test_what_others_have_called_safe_is_not(tmp_path):
    """mmengine, for one, calls the real getattr safe."""
    with torch.serialization.safe_globals([getattr, (os.putenv, 'os.putenv')]):
        before = torch.serialization.get_safe_globals()
        for kind in ('a call', 'Python by way of a method'):
            with pytest.raises(UnreadableCheckpointError):
                read_checkpoint(zipped(tmp_path, with_meta(HOSTILE[kind])))
        assert set(torch.serialization.get_safe_globals()) == set(before)
