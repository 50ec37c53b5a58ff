# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Damaged, edited and foreign checkpoints: one clear line, and nothing is changed."""

import copy
import io
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from _utils.toy import ToyModel, settings
from mmdet_adasap.apis import load_pruned

META = 'mmdet_adasap'


def short(work_dir: Path, **kwargs) -> dict:
    """A run that ends soon after the cut."""
    cfg = settings(work_dir, dict(prune=1, target=dict(params=0.5)), log_level='ERROR', **kwargs)
    cfg['experiment_name'] = f'{work_dir.name}_{random.getrandbits(64)}'
    cfg['train_cfg']['max_epochs'] = 4
    return cfg


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """A checkpoint of the last phase."""
    work_dir = tmp_path_factory.mktemp('whole')
    torch.manual_seed(0)
    Runner(model=ToyModel(), **short(work_dir)).train()
    return work_dir / 'epoch_3.pth'


def read(path: Path) -> dict:
    return torch.load(path, weights_only=False)


def cut_off(share: float) -> Callable:
    return lambda file, out: out.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def bit_flip(seed: int) -> Callable:
    """A bit of the pickled part, which holds meta and all names, in a file that is whole."""

    def damage(file: Path, out: Path) -> None:
        rng = random.Random(seed)
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(out, 'w') as new:
            for info in old.infolist():
                data = bytearray(old.read(info))
                if info.filename.endswith('data.pkl'):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                new.writestr(info.filename, bytes(data))

    return damage


def edited(edit: Callable[[dict], object]) -> Callable:
    def damage(file: Path, out: Path) -> None:
        checkpoint = read(file)
        edit(checkpoint)
        torch.save(checkpoint, out)

    return damage


def structure(edit: Callable[[dict], object], digest: bool = True) -> Callable:
    def apply(checkpoint: dict) -> None:
        found = checkpoint['meta'][META]
        if not digest:
            found.pop('digest', None)
        edit(found)

    return edited(apply)


def entry(key: str, value: object) -> Callable:
    return structure(lambda s: s.__setitem__(key, value))


def keep(name: str, axis: object, index: object) -> Callable:
    return structure(lambda s: s['keep'].setdefault(name, {}).__setitem__(axis, index), False)


def weight(name: str, change: Callable[[torch.Tensor], object]) -> Callable:
    return edited(lambda c: c['state_dict'].__setitem__(name, change(c['state_dict'][name])))


def saved(value: object) -> Callable:
    return lambda file, out: torch.save(value, out)


def written(data: bytes) -> Callable:
    return lambda file, out: out.write_bytes(data)


def zipped(file: Path, out: Path) -> None:
    with zipfile.ZipFile(out, 'w') as archive:
        archive.writestr('hello.txt', 'hello')


class RunsCode:
    def __reduce__(self) -> tuple:
        return print, ('code of a checkpoint was run',)


TENSORS = ('stem.0.weight', 'block.conv1.weight', 'block.bn1.running_mean', 'fc.weight', 'fc.bias')
# A kind of damage, and functions that do it; what is tried of a kind is tried in one test.
DAMAGE = {
    'cut off': [cut_off(share) for share in np.arange(20) / 20],
    'bit flip': [bit_flip(seed) for seed in range(30)],
    # What the structure says
    **{
        f'wrong {key}': [entry(key, value) for value in values]
        for key, values in {
            'version': (0, 2, '1', None),
            'phase': ('cut', None, 3),
            'keep': (None, [], {'stem.0.weight': None}, {'stem.0.weight': {0: 'all'}}),
            'attrs': (None, 3, {'stem.0': None}, {'stem.0': {'out_channels': 1.5}}),
            'dense': (None, {'params': 1}),
            'reached': (None, {'params': 0.01}),
            'target': (None,),
            'digest': ('0' * 16,),
        }.items()
    },
    'structure without an entry': [
        structure(lambda s, key=key: s.pop(key))
        for key in ('version', 'phase', 'keep', 'attrs', 'dense', 'reached', 'target')
    ],
    'keep without a tensor': [structure(lambda s: s['keep'].pop('fc.weight'))],
    'keep of a missing tensor': [keep('neck.weight', 0, [0, 1])],
    'index out of range': [keep('stem.0.weight', 0, [0, 1, 99])],
    'negative index': [keep('stem.0.weight', 0, [-1, 2])],
    'index twice': [keep('stem.0.weight', 0, [1, 1, 2])],
    'unsorted index': [keep('stem.0.weight', 0, [2, 1])],
    'no index': [keep('stem.0.weight', 0, [])],
    'index of floats': [keep('stem.0.weight', 0, [0.0, 1.0])],
    'axis out of range': [keep('stem.0.weight', 7, [0])],
    'axis as text': [keep('stem.0.weight', '0', [0])],
    'a kernel': [keep('stem.0.weight', 2, [0, 1])],
    'attribute of no module': [structure(lambda s: s['attrs'].update(neck={'width': 3}), False)],
    'attribute above dense': [
        structure(lambda s: s['attrs'].update({'stem.0': {'out_channels': 99}}), False)
    ],
    # What the weights are
    'longer tensors': [weight(name, lambda t: torch.cat([t, t])) for name in TENSORS],
    'flat tensors': [weight(name, lambda t: t.flatten()[:1]) for name in TENSORS],
    'missing tensors': [
        edited(lambda c, name=name: c['state_dict'].pop(name)) for name in TENSORS
    ],
    'weights of numbers': [weight('fc.weight', lambda t: 5)],
    'no weights': [edited(lambda c: c.__setitem__('state_dict', {}))],
    'weights as a list': [edited(lambda c: c.__setitem__('state_dict', []))],
    'meta as a number': [edited(lambda c: c.__setitem__('meta', 5))],
    'structure as text': [edited(lambda c: c['meta'].__setitem__(META, 'slim'))],
    # What is no checkpoint
    'empty': [written(b'')],
    'text': [written(b'see work_dirs\n')],
    'zeros': [written(bytes(10_000))],
    'pickle': [written(pickle.dumps({'state_dict': {}}))],
    'code': [saved({'meta': RunsCode(), 'state_dict': {}})],
    'list': [saved([1, 2])],
    'tensor': [saved(torch.zeros(3))],
    'archive': [zipped],
    'other model': [saved({'state_dict': torch.nn.Linear(3, 4).state_dict()})],
}


def damaged(kind: str, whole: Path, folder: Path) -> Iterator[Path]:
    """Checkpoints that are damaged in all ways of a kind; names have the place in DAMAGE."""
    for number, damage in enumerate(DAMAGE[kind]):
        file = folder / f'damaged_{number}.pth'
        damage(whole, file)
        yield file
        file.unlink()  # errors name another checkpoint of the folder, where there is one


def all_of(model: torch.nn.Module) -> tuple[str, bytes]:
    """Numbers of channels that layers show, and weights."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return repr(model), buffer.getvalue()


def same_model(model: torch.nn.Module, whole: Path) -> bool:
    expected = read(whole)['state_dict']
    found = model.state_dict()
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in found
    )


def assert_one_clear_line(error: Exception, file: Path) -> None:
    text = str(error)
    assert isinstance(error, ValueError | OSError), (file.name, error)
    assert '\n' not in text, file.name
    assert len(text) > 40, file.name
    assert any(part in text for part in (file.name, META, 'resume:', 'checkpoint')), file.name


@pytest.mark.parametrize('kind', DAMAGE)
def test_load_pruned(kind, whole, tmp_path, capfd):
    for file in damaged(kind, whole, tmp_path):
        model = ToyModel()
        before = all_of(model)
        try:
            load_pruned(model, str(file))
        except Exception as error:
            assert_one_clear_line(error, file)
            assert all_of(model) == before, file.name
        else:  # the flip of a bit that means nothing
            assert kind == 'bit flip', file.name
            assert same_model(model, whole), file.name
    assert 'code of a checkpoint' not in capfd.readouterr().out


# mmengine's own loading runs code where a file holds more than data, and says so.
# Without a dict in meta nothing tells that a file is ours: mmengine loads what fits and logs the
# rest.
LOADED = [kind for kind in DAMAGE if kind not in ('code', 'meta as a number')]


@pytest.mark.parametrize('kind', LOADED)
def test_load_from(kind, whole, tmp_path):
    """By a run, through mmengine's loading and AdaSAPHook."""
    for file in damaged(kind, whole, tmp_path):
        runner = Runner(model=ToyModel(), **short(tmp_path / 'run', load_from=str(file)))
        before = all_of(runner.model)
        try:
            runner.load_or_resume()
        except Exception as error:
            assert_one_clear_line(error, file)
            assert all_of(runner.model) == before, file.name
        else:
            assert kind == 'bit flip', file.name
            assert same_model(runner.model, whole), file.name


RESUMED = [kind for kind in DAMAGE if kind not in ('cut off', 'bit flip', 'code')]


class TestResume:
    @pytest.mark.parametrize('kind', RESUMED)
    def test_refused(self, kind, whole, tmp_path, capfd):
        for file in damaged(kind, whole, tmp_path):
            self.assert_refused(file, tmp_path)
        assert 'code of a checkpoint' not in capfd.readouterr().out

    def test_half_a_file(self, whole, tmp_path):
        file = tmp_path / 'damaged.pth'
        cut_off(0.5)(whole, file)
        self.assert_refused(file, tmp_path)

    @pytest.mark.parametrize(
        'edit',
        [
            lambda c: c.pop('optimizer'),
            lambda c: c.pop('message_hub'),
            lambda c: c['meta'].pop('iter'),
            lambda c: c['meta'].__setitem__('epoch', 'three'),
            lambda c: c['optimizer'].pop('state'),
            lambda c: c['optimizer']['state'][0].update(momentum_buffer=torch.zeros(2, 3)),
        ],
    )
    def test_what_training_needs(self, edit, whole, tmp_path):
        file = tmp_path / 'damaged.pth'
        edited(edit)(whole, file)
        self.assert_refused(file, tmp_path)

    def assert_refused(self, file: Path, tmp_path: Path) -> None:
        runner = Runner(
            model=ToyModel(), **short(tmp_path / 'run', load_from=str(file), resume=True)
        )
        steps = []
        train_step = runner.model.train_step
        runner.model.train_step = lambda *args, **kwargs: (
            steps.append(1),
            train_step(*args, **kwargs),
        )[1]
        with pytest.raises(Exception) as caught:  # noqa: PT011
            runner.train()
        assert_one_clear_line(caught.value, file)
        assert not steps, file.name


def test_the_whole_one_is_loaded(whole, tmp_path):
    model = ToyModel()
    load_pruned(model, str(whole))
    assert same_model(model, whole)
    assert copy.deepcopy(model)(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
