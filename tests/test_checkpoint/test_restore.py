# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import Runner

from _utils.toy import MeanLogit, ToyModel, loader
from mmdet_adasap.apis import load_pruned
from mmdet_adasap.errors import StructureError

IMAGES = torch.randn(2, 3, 8, 8)


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    """A checkpoint as training writes it, and the model that it is of."""
    folder = tmp_path_factory.mktemp('run')
    hook = dict(type='AdaSAPHook', warmup=1, prune=1, target=dict(params=0.5), interval=3)
    data = loader()
    data['dataset'].metainfo = dict(classes=('a', 'b', 'c', 'd'))
    runner = Runner(
        ToyModel(),
        **dict(
            work_dir=str(folder),
            experiment_name='loading',
            train_dataloader=data,
            train_cfg=dict(by_epoch=True, max_epochs=3),
            val_dataloader=loader(shuffle=False),
            val_cfg=dict(),
            val_evaluator=dict(type=MeanLogit),
            optim_wrapper=dict(type='AdaSAPOptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(adasap=hook | dict(round_to=1)),
            default_scope='mmengine',
            log_level='WARNING',
        ),
    )
    runner.train()
    return folder / 'epoch_3.pth', runner.model.eval()


def test_pruned_checkpoint(trained):
    file, slim = trained
    model = ToyModel()
    model.dataset_meta = dict(classes=('of', 'another', 'set'))
    structure = load_pruned(model, str(file))
    assert structure['reached']['params'] <= 0.5
    assert torch.equal(model.eval()(IMAGES), slim(IMAGES))
    assert model.dataset_meta['classes'] == ('a', 'b', 'c', 'd')


def test_dense_checkpoint(tmp_path):
    dense, model = ToyModel().eval(), ToyModel().eval()
    torch.save(dense.state_dict(), tmp_path / 'dense.pth')
    assert load_pruned(model, str(tmp_path / 'dense.pth')) is None
    assert torch.equal(model(IMAGES), dense(IMAGES))


@pytest.mark.parametrize('key', ['fc.weight', 'stem.1.running_mean'])
def test_missing_tensor_changes_nothing(trained, tmp_path, key):
    checkpoint = torch.load(trained[0], weights_only=False)
    del checkpoint['state_dict'][key]
    torch.save(checkpoint, tmp_path / 'less.pth')
    model = ToyModel()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(StructureError, match=re.escape(f'lacks {key} of the model (1 tensors')):
        load_pruned(model, str(tmp_path / 'less.pth'))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_code_in_a_checkpoint_is_not_run(trained, tmp_path):
    checkpoint = torch.load(trained[0], weights_only=False)
    checkpoint['meta']['note'] = Payload(tmp_path / 'was run')
    torch.save(checkpoint, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=r'evil\.pth is damaged or holds more than data, and is'):
        load_pruned(ToyModel(), str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'was run').exists()


def test_torn_file(trained, tmp_path):
    torn = tmp_path / 'torn.pth'
    torn.write_bytes(trained[0].read_bytes()[:5000])
    with pytest.raises(ValueError, match=r'torn\.pth is damaged'):
        load_pruned(ToyModel(), str(torn))


class Reaching:
    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self):
        return getattr, (HistoryBuffer, self.name)


def test_nothing_but_statistics_is_reached(trained, tmp_path):
    checkpoint = torch.load(trained[0], weights_only=False)
    for name, allowed in (('mean', True), ('__init__', False)):
        checkpoint['meta']['note'] = Reaching(name)
        torch.save(checkpoint, tmp_path / 'reaching.pth')
        with (
            nullcontext() if allowed else pytest.raises(ValueError, match="'__init__' is not data")
        ):
            load_pruned(ToyModel(), str(tmp_path / 'reaching.pth'))
