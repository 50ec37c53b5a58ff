# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What mmengine loads without this package, it loads with it, and fails where it fails."""

import copy
import itertools
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.infer import infer as mmengine_infer
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner
from torch import nn

from mmdet_adasap.checkpoint.guard import GUARDED, guard
from mmdet_adasap.checkpoint.safe_load import TORCH_TAKES_NAMES
from mmdet_adasap.errors import UnreadableCheckpointError, message_for_user, unreadable


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


WEIGHTS = OrderedDict((name, tensor + 1) for name, tensor in net().state_dict().items())
HELD = {
    'weights alone': WEIGHTS,
    'meta as text': dict(meta='trained by us', state_dict=WEIGHTS),
    'meta as a list': dict(meta=[1], state_dict=WEIGHTS),
    'no meta': dict(meta=None, state_dict=WEIGHTS),
    'meta of another program': dict(meta=dict(mmdet_adasap=None), state_dict=WEIGHTS),
    'other sizes': dict(state_dict={**WEIGHTS, '0.weight': torch.zeros(9, 3, 1, 1)}),
    'tensor': torch.zeros(3),
    'list': [1, 2],
    'text': 'weights',
    'none': None,
    'module': net(),
    'weights as a list': dict(state_dict=[1, 2]),
    'weights as a module': dict(state_dict=net()),
    'weights as text': dict(meta=dict(epoch=1), state_dict='see the other file'),
    'structure without weights': dict(meta=dict(epoch=1)),
}
COUNT = itertools.count()
WRITTEN = {
    'empty': b'',
    'text': b'see work_dirs\n',
    'zeros': bytes(10_000),
    'pickle': pickle.dumps(dict(state_dict=1)),
    'no such module': b'cnowhere\nName\n.',
    'not unicode': pickle.dumps('abc').replace(b'abc', b'\xff\xfe\xfd'),
}


def outcome(file: Path, load) -> tuple:
    """What a load ends with, and the weights after it."""
    model = net()
    try:
        kind = type(load(model, str(file)))
    except Exception as error:
        kind = error
    return kind, model.state_dict()


def read(model: nn.Module, file: str) -> object:
    return CheckpointLoader.load_checkpoint(file)


def run(model: nn.Module, file: str) -> object:
    folder = Path(file).parent / 'run'
    name = f'guard_{next(COUNT)}'
    runner = Runner(model, str(folder), experiment_name=name, log_level='ERROR')
    return runner.load_checkpoint(file)


@pytest.fixture
def without_us(monkeypatch):
    """mmengine's functions as they are without this package."""

    def restore() -> None:
        load = mmengine_checkpoint._load_checkpoint_to_model
        for module in (mmengine_checkpoint, mmengine_runner):
            monkeypatch.setattr(module, '_load_checkpoint_to_model', load.__wrapped__)
        schemes = CheckpointLoader._schemes
        monkeypatch.setitem(schemes, '', schemes[''].__wrapped__)

    return restore


@pytest.mark.parametrize('load', [read, load_checkpoint, run])
@pytest.mark.parametrize('name', [*HELD, *WRITTEN])
def test_as_without_us(name, load, tmp_path, without_us):
    file = tmp_path / 'other.pth'
    if name in HELD:
        torch.save(HELD[name], file)
    else:
        file.write_bytes(WRITTEN[name])
    ours, weights = outcome(file, load)
    without_us()
    theirs, expected = outcome(file, load)
    if isinstance(theirs, Exception):
        assert isinstance(ours, type(theirs)), (ours, theirs)
        # What mmengine reads and cannot use is said in its own words.
        assert name in WRITTEN or str(ours) == str(theirs)
    else:
        assert ours == theirs
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_functions_that_were_imported_by_name_are_guarded(monkeypatch):
    """`from mmdet.apis import DetInferencer` often stands above `import mmdet_adasap`."""
    name = '_load_checkpoint_to_model'
    unguarded = getattr(mmengine_checkpoint, name).__wrapped__
    for module in (mmengine_checkpoint, mmengine_runner, mmengine_infer):
        monkeypatch.setattr(module, name, unguarded)
    guard()
    for module in (mmengine_checkpoint, mmengine_runner, mmengine_infer):
        assert hasattr(getattr(module, name), GUARDED), module


@pytest.mark.parametrize('name', WRITTEN)
def test_damage_is_named(name, tmp_path):
    file = tmp_path / 'other.pth'
    file.write_bytes(WRITTEN[name])
    with pytest.raises(Exception, match='other') as caught:
        load_checkpoint(net(), str(file))
    if name != 'pickle':  # of which mmengine reads all, to find no tensors
        assert isinstance(caught.value, UnreadableCheckpointError)
        assert '\n' not in str(caught.value)
        assert message_for_user(caught.value).startswith(f'{file} cannot be read as a checkpoint')


@pytest.mark.skipif(
    not TORCH_TAKES_NAMES, reason='torch before 2.6 reads all that mmengine writes'
)
def test_what_mmengine_wrote_is_read_where_torch_refuses_it(tmp_path, monkeypatch):
    """As mmengine 0.10.7 reads on torch 2.6: without a word on what its checkpoints hold."""

    def load_from_local(filename, map_location):
        return torch.load(filename, map_location=map_location)

    monkeypatch.setitem(CheckpointLoader._schemes, '', load_from_local)
    file, code = str(tmp_path / 'epoch_1.pth'), str(tmp_path / 'code.pth')
    hub = dict(log_scalars=dict(loss=HistoryBuffer([0.5], [1])))
    torch.save(dict(meta=dict(epoch=1), state_dict=WEIGHTS, message_hub=hub), file)
    torch.save(dict(meta=pytest.raises, state_dict=WEIGHTS), code)
    with pytest.raises(pickle.UnpicklingError):
        CheckpointLoader.load_checkpoint(file, 'cpu')
    guard()
    found = CheckpointLoader.load_checkpoint(file, 'cpu')
    assert found['message_hub']['log_scalars']['loss'].current() == 0.5
    assert torch.equal(found['state_dict']['0.weight'], WEIGHTS['0.weight'])
    with pytest.raises(UnreadableCheckpointError, match=r'newest whole checkpoint .*epoch_1\.pth'):
        CheckpointLoader.load_checkpoint(code, 'cpu')


@pytest.mark.parametrize(
    ('record', 'kind'), [(b'', FileNotFoundError), (b'\xff\xfe', UnicodeDecodeError)]
)
def test_record_of_the_latest(tmp_path, record, kind):
    (tmp_path / 'last_checkpoint').write_bytes(record)
    with pytest.raises(kind) as caught:
        mmengine_runner.find_latest_checkpoint(str(tmp_path))
    assert isinstance(caught.value, UnreadableCheckpointError)


@pytest.mark.parametrize(
    'kind', [RuntimeError, EOFError, KeyError, OSError, UnicodeDecodeError, ModuleNotFoundError]
)
def test_error_of_two_kinds_reaches_another_process_whole(kind):
    error = unreadable('a.pth cannot be read', kind)
    for each in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert isinstance(each, kind)
        assert isinstance(each, UnreadableCheckpointError)
        assert str(each) == message_for_user(each) == 'a.pth cannot be read'
