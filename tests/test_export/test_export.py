# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner

pytest.importorskip('mmdet')

from mmdet.apis import inference_detector, init_detector

from builtin_sets.tiny_voc import build_tiny_voc
from mmdet_adasap.apis import build_dense, export_pruned, init_pruned_detector, prune_model
from mmdet_adasap.env import find_tool
from mmdet_adasap.errors import ExportMismatchError
from mmdet_adasap.export.comparison import format_table, load_slim_weights
from mmdet_adasap.export.config import exported_config
from mmdet_adasap.models import noise_batch, raw_forward, synthetic_batch
from mmdet_adasap.pruning.equivalence import difference, raw_outputs

ROOT = Path(__file__).parents[2]
CASE = ROOT / 'tests' / '_utils' / 'exported_case.py'
YOLOX = ROOT / 'configs' / 'demo' / 'adasap_yolox_tiny-voc.py'
SSDLITE = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
FILES = {'config.py', 'model.pth', 'report.json', 'slim_model_v1.py', 'structure.json'}

TRAINING = """
_base_ = {base!r}
custom_imports = dict(imports=['mmdet_adasap', '_utils.score_sum'], allow_failed_imports=False)
load_from = None
model = dict(test_cfg=dict(score_thr=0.0))
train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
val_dataloader = dict(dataset=dict(data_root={data!r}))
test_dataloader = dict(dataset=dict(data_root={data!r}, ann_file='VOC2007/ImageSets/Main/val.txt'))
val_evaluator = dict(_delete_=True, type='ScoreSum')
test_evaluator = dict(_delete_=True, type='ScoreSum')
train_cfg = dict(max_epochs=3, val_interval=3)
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=3), adasap=dict(warmup=1, prune=1, interval=2)
)
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.01, priority=49)]
work_dir = {work!r}
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """A folder with a config, and checkpoints of a short training that prunes, with EMA."""
    folder = tmp_path_factory.mktemp('trained')
    build_tiny_voc(folder / 'data', train=16, val=4, test=4)
    data = f'{folder}/data/VOCdevkit/'
    text = TRAINING.format(base=str(YOLOX), data=data, work=str(folder))
    (folder / 'own.py').write_text(text)
    config = Config.fromfile(folder / 'own.py')
    runner = Runner.from_cfg(config)
    runner.train()
    DefaultScope._instance_dict.clear()
    return folder


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory) -> Path:
    """That model, exported, and the folder moved afterwards."""
    folder = tmp_path_factory.mktemp('exported')
    out = folder / 'new' / 'first'
    export_pruned(trained / 'own.py', trained / 'epoch_3.pth', out, rounds=1)
    moved = folder / "somebody's own"
    shutil.move(out, moved)
    return moved


def pruned(config: str | Path, file: Path, params: float) -> Path:
    """A checkpoint with random weights, among whose boxes there are some with high scores."""
    model, generator = build_dense(config), torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.dim() > 1:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        structure = prune_model(model, synthetic_batch(model, 320), dict(params=params))
    weights = model.state_dict()
    torch.save({'meta': {'mmdet_adasap': structure}, 'state_dict': weights}, file)
    return file


@pytest.fixture(scope='module')
def ssdlite(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint with random weights, and the folder that it is exported to."""
    folder = tmp_path_factory.mktemp('ssdlite')
    file = pruned(SSDLITE, folder / 'pruned.pth', 0.5)
    export_pruned(SSDLITE, file, folder / 'slim', rounds=1)
    return file, folder / 'slim'


@pytest.fixture(scope='module')
def image(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp('image') / 'image.png'
    mmcv.imwrite(np.random.default_rng(1).integers(0, 256, (120, 150, 3), dtype=np.uint8), file)
    return file


def without_plugin(folder: Path, *arguments: object) -> None:
    """Run exported_case.py in another folder, where of the project there is but score_sum.py."""
    env = os.environ | dict(PYTHONPATH=str(ROOT / 'tests'), OMP_NUM_THREADS='1')
    command = [sys.executable, CASE, *arguments]
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def with_plugin(config: str | Path, checkpoint: Path, image: Path) -> dict[str, torch.Tensor]:
    config = config if isinstance(config, Path) else str(mmdet_config(config))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = init_pruned_detector(config, checkpoint)
    found = inference_detector(model, str(image)).pred_instances
    return {key: found[key] for key in ('bboxes', 'scores', 'labels')}


def mmdet_config(name: str) -> Path:
    import mmdet

    return Path(mmdet.__file__).parent / '.mim' / 'configs' / name.removeprefix('mmdet::')


def same(found: dict, expected: dict) -> bool:
    return all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.long
def test_boxes_of_two_models_in_one_process(trained, exported, ssdlite, image, tmp_path):
    """Where the plugin cannot be imported; the second is an SSD, which mmdet cannot predict."""
    file, slim = ssdlite
    without_plugin(tmp_path, 'find', image, tmp_path / 'out.pth', exported, slim)
    yolox, ssd = torch.load(tmp_path / 'out.pth')
    for found, expected in (
        (yolox, with_plugin(trained / 'own.py', trained / 'epoch_3.pth', image)),
        (ssd, with_plugin(SSDLITE, file, image)),
    ):
        assert len(expected['scores']) > 20
        for way in ('boxes', 'copied', 'inferencer'):
            assert same(found[way], expected), way
    assert yolox['classes'][:2] == ('zero', 'one')
    assert len(ssd['classes']) == 80


@pytest.fixture(scope='module')
def ran(exported, tmp_path_factory) -> Path:
    """A folder in which mmdet's tools have tested and trained the exported model."""
    folder = tmp_path_factory.mktemp('ran')
    config = exported / 'config.py'
    test = (find_tool('test'), config, exported / 'model.pth', '--work-dir', folder / 'test')
    train = (find_tool('train'), config, '--work-dir', folder / 'run')
    less = ('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    arguments = (*test, 'then', *train, *less)
    without_plugin(folder, 'tools', *arguments)
    return folder


@pytest.mark.long
def test_what_test_py_evaluates_is_exported(trained, exported, ran):
    """The moving average; test.py then gives the numbers of the run's validation."""
    checkpoint = torch.load(trained / 'epoch_3.pth', weights_only=False)
    weights = torch.load(exported / 'model.pth', weights_only=True)['state_dict']
    name = 'bbox_head.multi_level_conv_cls.0.weight'
    assert torch.equal(weights[name], checkpoint['state_dict'][name])
    assert not torch.equal(weights[name], checkpoint['ema_state_dict'][f'module.{name}'])

    (file,) = trained.rglob('scalars.json')
    validated = json.loads(file.read_text().splitlines()[-1])
    (file,) = (ran / 'test').glob('*/*.json')
    tested = json.loads(file.read_text())
    assert validated['scores'] > 0
    for key in ('scores', 'boxes'):
        assert tested[key] == validated[key]


@pytest.mark.long
def test_fine_tuning(exported, ran):
    """It starts from the slim weights and keeps the shape."""
    (log,) = (ran / 'run').glob('*/*.log')
    assert f'Load checkpoint from {exported}/model.pth' in log.read_text()
    assert 'size mismatch' not in log.read_text()
    tuned = torch.load(ran / 'run' / 'epoch_1.pth', weights_only=False)['state_dict']
    weights = torch.load(exported / 'model.pth', weights_only=True)['state_dict']
    assert {k: v.shape for k, v in tuned.items()} == {k: v.shape for k, v in weights.items()}
    name = 'backbone.stem.conv.conv.weight'
    moved = (tuned[name] - weights[name]).norm() / weights[name].norm()
    assert 0 < moved < 0.1  # random weights would be about 1.4 away


DUMPED = """
import sys
from mmengine.config import Config
try:
    Config.fromfile('run/config.py')
except ImportError as error:
    print(error)
sys.path.append(sys.argv[1])
print(Config.fromfile('run/config.py').model.type)
"""


@pytest.mark.long
def test_config_that_train_py_dumps(exported, ran):
    """It is read where the exported folder is on the path; without it the error says so."""
    done = subprocess.run(
        [sys.executable, '-c', DUMPED, exported],
        cwd=ran,
        env=os.environ | dict(PYTHONPATH=str(ROOT / 'tests')),
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'should set `PYTHONPATH`' in done.stdout
    assert done.stdout.splitlines()[-1] == 'SlimModel'


@pytest.mark.long
def test_files(trained, exported):
    assert {path.name for path in exported.iterdir()} - {'__pycache__'} == FILES
    report = json.loads((exported / 'report.json').read_text())
    checkpoint = torch.load(exported / 'model.pth', weights_only=True)
    assert checkpoint.keys() == {'meta', 'state_dict'}
    numbers = sum(tensor.numel() for tensor in checkpoint['state_dict'].values())
    size = (exported / 'model.pth').stat().st_size
    assert 4 * numbers < size < 4 * numbers + 300_000  # of names and zip entries
    # Which has weights, moving averages and momentum.
    assert size < 0.34 * (trained / 'epoch_3.pth').stat().st_size
    assert report['bytes']['weights']['slim'] == size
    assert report['parameters']['dense'] == 2_243_405
    assert report['parameters']['slim'] / 2_243_405 == pytest.approx(0.5, abs=0.01)
    assert 0 < report['flops']['slim'] < report['flops']['dense'] == 137_593_856
    assert report['latency']['image'] == [128, 128]
    text = format_table(report)
    assert 'parameters' in text
    assert 'slim/dense' in text
    code = (exported / 'slim_model_v1.py').read_text()
    imported = set(re.findall(r'^(?:import|from) (\w+)', code, re.M))
    assert imported <= {'json', 'pathlib', 'torch', 'mmengine'}


DETECTORS = {
    'ssd300': ('ssd300/adasap_ssd300_voc0712.py', 'ssd300_voc0712.py'),
    'retinanet': ('retinanet/adasap_retinanet_r50_fpn_1x_voc0712.py', None),
    'faster-rcnn': ('faster_rcnn/adasap_faster-rcnn_r50_fpn_1x_voc0712.py', None),
    'yolox-s': ('yolox/adasap_yolox_s_8xb8-300e_voc0712.py', None),
}


def read(text: str, folder: Path) -> Config:
    (folder / 'config.py').write_text(text)
    found = Config.fromfile(folder / 'config.py', import_custom_modules=False)
    sys.path.remove(str(folder))
    return found


@pytest.mark.parametrize('name', ['ssd300', 'yolox-s'])
def test_config_has_nothing_of_ours(name, tmp_path):
    file = ROOT / 'configs' / DETECTORS[name][0]
    config = Config.fromfile(file)
    before = config.to_dict()
    text, _, changes = exported_config(config, 'slim')
    assert config.to_dict() == before
    code = text.split('sys.path.append')[1]
    assert not re.search('adasap|Perturbation|Importance|Pretrained|open-mmlab', code, re.I)
    assert 'optim_wrapper: OptimWrapper instead of AdaSAPOptimWrapper' in changes
    assert 'default_hooks.adasap: without AdaSAPHook' in changes
    found = read(text, tmp_path)
    for key in ('param_scheduler', 'train_cfg', 'train_dataloader', 'test_evaluator'):
        assert found[key] == config[key]
    assert found.optim_wrapper == dict(config.optim_wrapper, type='OptimWrapper')
    assert found.custom_imports.imports == ['slim_model_v1']
    assert found.load_from == f'{tmp_path}/model.pth'
    assert found.model.dense == config.model.type


def test_parts_of_ours_that_derive_from_mmdets_own(tmp_path, monkeypatch):
    class SaferCheckpointHook(CheckpointHook):
        """Stands for any class of the plugin."""

        def __init__(self, safer: bool = True, **kwargs) -> None:
            super().__init__(**kwargs)

    SaferCheckpointHook.__module__ = 'mmdet_adasap.hooks'
    monkeypatch.setitem(HOOKS.module_dict, 'SaferCheckpointHook', SaferCheckpointHook)
    dataset = dict(type='CorruptedVOCDataset', corruption='fog', severity=3, data_root='x')
    step = dict(type='ImageCorruption', corruption='fog', severity=3)
    pretrained = dict(type='Pretrained', checkpoint='x')
    config = Config(
        dict(
            model=dict(type='SSD', backbone=dict(depth=16, init_cfg=[pretrained])),
            custom_imports=dict(imports=['mine', 'mmdet_adasap.hooks']),
            optim_wrapper=dict(
                type='AdaSAPAmpOptimWrapper', perturbation=None, dtype='bfloat16', clip_grad=1
            ),
            data=dict(type='RepeatDataset', dataset=dataset),
            pipeline=[dict(type='LoadImageFromFile'), step],
            custom_hooks=[dict(type='mmengine.AdaSAPHook', warmup=1), dict(type='EMAHook')],
            default_hooks=dict(
                checkpoint=dict(type='SaferCheckpointHook', safer=True, interval=7)
            ),
            work_dir='old',
        )
    )
    text, _, changes = exported_config(config, 'slim')
    found = read(text, tmp_path)
    assert found.data == dict(type='RepeatDataset', dataset=dict(type='VOCDataset', data_root='x'))
    assert found.pipeline == [dict(type='LoadImageFromFile')]
    assert found.custom_hooks == [dict(type='EMAHook')]
    assert found.default_hooks == dict(checkpoint=dict(type='CheckpointHook', interval=7))
    assert found.optim_wrapper == dict(type='OptimWrapper', clip_grad=1)
    assert found.custom_imports.imports == ['mine', 'slim_model_v1']
    assert found.model.backbone == dict(depth=16)
    assert found.work_dir == './work_dirs/slim_runs'
    assert 'pipeline[1]: without ImageCorruption' in changes


@pytest.mark.long
def test_the_dense_model_finds_what_the_slim_one_finds(exported, trained):
    """So that their times can be compared."""
    structure = torch.load(trained / 'epoch_3.pth', weights_only=False)['meta']['mmdet_adasap']
    slim = init_pruned_detector(trained / 'own.py', trained / 'epoch_3.pth')
    dense = build_dense(trained / 'own.py').eval()
    load_slim_weights(dense, slim, structure['keep'])
    batch = slim.data_preprocessor(noise_batch(slim.cfg), False)
    assert sum(p.numel() for p in dense.parameters()) == structure['dense']['params']
    found = [raw_outputs(model, raw_forward(batch)) for model in (dense, slim)]
    assert difference(*found) < 1e-5


@pytest.mark.long
def test_init_pruned_detector(trained, image):
    model = init_pruned_detector(trained / 'own.py', str(trained / 'epoch_3.pth'))
    assert not model.training
    assert model.dataset_meta['classes'][:2] == ('zero', 'one')
    assert 'palette' in model.dataset_meta
    assert len(inference_detector(model, [str(image)] * 2)) == 2
    runner = torch.load(trained / 'epoch_3.pth', weights_only=False)['state_dict']
    assert all(torch.equal(value, runner[name]) for name, value in model.state_dict().items())
    with pytest.raises(FileNotFoundError):
        init_pruned_detector(trained / 'own.py', 'no_such.pth')


@pytest.mark.long
def test_weights_of_another_model(exported, trained, tmp_path):
    """mmengine would log the sizes and go on with random weights, either way."""
    config = Config.fromfile(exported / 'config.py')
    dense = tmp_path / 'dense.pth'
    torch.save(build_dense(trained / 'own.py').state_dict(), dense)
    with pytest.raises(ValueError, match=r'tensors have other shapes than the slim model'):
        init_detector(config, str(dense), device='cpu')
    cfg = Config.fromfile(trained / 'own.py')
    cfg.load_from = str(exported / 'model.pth')
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ValueError, match=r'other shapes than YOLOX.*the config.py beside it'):
        Runner.from_cfg(cfg).test()
    DefaultScope._instance_dict.clear()


@pytest.mark.long
def test_head_for_other_classes_learns_on(exported):
    config = Config.fromfile(exported / 'config.py')
    config.model.bbox_head.num_classes = 3
    init_detector(config, str(exported / 'model.pth'), device='cpu')


@pytest.fixture
def export(run_tool):
    return lambda *arguments: run_tool('export.py', *arguments, '--rounds', '1')


@pytest.mark.long
def test_program(export, exported, trained, tmp_path):
    """Over a former export; what else a folder holds is neither lost nor overwritten."""
    out = tmp_path / 'slim'
    shutil.copytree(exported, out)
    (out / 'config.py').write_text('broken')
    (out / 'model.onnx').write_text('of the former export')
    code, printed, err = export(trained / 'own.py', trained / 'epoch_3.pth', '--out', out)
    assert not code, err
    assert 'export: removed model.onnx of the export before' in err.splitlines()[-1]
    assert not (out / 'model.onnx').exists()
    assert re.search(r'parameters +2,243,405 ', printed)
    assert 'config: default_hooks.adasap: without AdaSAPHook' in printed
    assert str(out) in printed
    assert 'SlimModel' in (out / 'config.py').read_text()

    (out / 'notes.txt').write_text('mine')
    (out / 'config.py').write_text('broken')
    arguments = (trained / 'own.py', trained / 'epoch_3.pth', '--out', out)
    code, _, _ = export(*arguments)
    assert 'is not empty, and no export wrote notes.txt there' in code
    assert (out / 'config.py').read_text() == 'broken'
    code, _, err = export(*arguments, '--force')
    assert not code, err
    assert (out / 'notes.txt').read_text() == 'mine'
    assert {path.name for path in out.iterdir()} == FILES | {'notes.txt'}
    assert [path.name for path in out.parent.iterdir()] == ['slim']


@pytest.mark.long
@pytest.mark.parametrize(
    ('config', 'checkpoint', 'message'),
    [
        ('own.py', 'no_such.pth', 'no_such.pth'),
        ('no_such.py', 'epoch_3.pth', 'no_such.py'),
        ('own.py', 'bare.pth', 'has the shape'),
        ('own.py', 'list.pth', 'list.pth: it holds a list and no checkpoint'),
        ('own.py', 'epoch_1.pth', "was saved in the phase 'prune', when channels are masked"),
        ('own.py', 'torn.pth', 'torn.pth is damaged'),
        (SSDLITE, 'epoch_3.pth', 'use the config that the checkpoint was trained with'),
        ('own.py', 'config.py', 'is damaged or holds more than data'),
        ('wider.py', 'epoch_3.pth', 'the config must build the model that was pruned'),
        ('untested.py', 'epoch_3.pth', 'test_dataloader is missing'),
        ('slim/config.py', 'epoch_3.pth', 'was written by an export and builds a slim model'),
    ],
)
def test_errors_are_one_line(export, exported, trained, tmp_path, config, checkpoint, message):
    full = torch.load(trained / 'epoch_3.pth', weights_only=False)
    torch.save({'meta': {}, 'state_dict': full['state_dict']}, tmp_path / 'bare.pth')
    torch.save([1], tmp_path / 'list.pth')
    torch.save(full, tmp_path / 'epoch_3.pth')
    (tmp_path / 'torn.pth').write_bytes((tmp_path / 'epoch_3.pth').read_bytes()[:5000])
    shutil.copy(trained / 'epoch_1.pth', tmp_path)
    own = f'_base_ = {str(trained / "own.py")!r}\n'
    (tmp_path / 'own.py').write_text(own)
    (tmp_path / 'config.py').write_text(own)
    shutil.copytree(exported, tmp_path / 'slim')
    (tmp_path / 'wider.py').write_text(own + 'model = dict(bbox_head=dict(num_classes=11))\n')
    config = config if '::' in config else tmp_path / config
    if 'untested' in str(config):
        whole = Config.fromfile(trained / 'own.py').to_dict()
        Config({k: v for k, v in whole.items() if k != 'test_dataloader'}).dump(config)
    code, _, _ = export(config, tmp_path / checkpoint, '--out', tmp_path / 'out')
    assert isinstance(code, str)  # printed, with exit code 1
    assert code.startswith('export: ')
    assert message in code
    assert '\n' not in code
    assert not [path for path in tmp_path.iterdir() if 'out' in path.name]


@pytest.mark.long
def test_dense_checkpoint(export, trained, image, tmp_path):
    """As it is, so that a slim model's files have something to be compared with."""
    torch.manual_seed(0)
    dense = build_dense(trained / 'own.py')
    torch.save({'meta': {}, 'state_dict': dense.state_dict()}, tmp_path / 'dense.pth')
    out = tmp_path / 'out'
    code, printed, err = export(trained / 'own.py', tmp_path / 'dense.pth', '--out', out)
    assert not code, err
    assert 'export: the checkpoint is dense: nothing is cut' in err
    assert 'the checkpoint is dense: both columns are the same model' in printed
    report = json.loads((out / 'report.json').read_text())
    assert report['parameters'] == dict(dense=2_243_405, slim=2_243_405)
    assert report['target'] == {}
    expected = with_plugin(trained / 'own.py', tmp_path / 'dense.pth', image)
    found = inference_detector(
        init_detector(str(out / 'config.py'), str(out / 'model.pth'), device='cpu'), str(image)
    ).pred_instances
    assert same(found, expected)


@pytest.mark.long
def test_folders_that_are_not_written_to(export, trained, tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'config.py').write_text('')
    for name, message in (('file', 'is a file'), ('full', 'no export wrote config.py there')):
        code, _, _ = export('x', 'y', '--out', tmp_path / name)
        assert message in code


@pytest.mark.long
def test_export_with_other_outputs_is_not_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        'mmdet_adasap.export.export.raw_outputs', lambda *args: [torch.rand(3)], raising=True
    )
    with pytest.raises(ExportMismatchError, match='does not give what the pruned one gives'):
        export_pruned(trained / 'own.py', trained / 'epoch_3.pth', tmp_path / 'out')
    assert not list(tmp_path.iterdir())


def test_onnx_that_is_not_installed(export, monkeypatch, tmp_path):
    monkeypatch.setattr('mmdet_adasap.export.onnx.find_spec', lambda name: None)
    code, _, _ = export('x', 'y', '--out', tmp_path / 'out', '--onnx')
    assert code.endswith('install with: pip install onnx onnxruntime')


@pytest.mark.long
def test_onnx(trained, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime', reason='pip install onnx onnxruntime')
    out = tmp_path / 'slim'
    report = export_pruned(trained / 'own.py', trained / 'epoch_3.pth', out, onnx=True, rounds=1)
    found = report['onnx']['model.onnx']
    assert found['difference'] < 1e-5
    assert 'model.onnx' in format_table(report)
    model = init_pruned_detector(trained / 'own.py', trained / 'epoch_3.pth')
    inputs = torch.randn(3, 3, 128, 128)
    with torch.no_grad():
        expected = [t for level in model(inputs, mode='tensor') for t in level]
    session = onnxruntime.InferenceSession(
        str(out / 'model.onnx'), providers=['CPUExecutionProvider']
    )
    given = session.run(None, {'input': inputs.numpy()})
    assert len(given) == len(expected) == 9
    for a, b in zip(given, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)


def test_free_size_without_onnx(export, tmp_path):
    code, _, _ = export('x', 'y', '--out', tmp_path / 'out', '--dynamic-size')
    assert code == 'export: --dynamic-size is about the ONNX file; give --onnx (onnx=True), too'


@pytest.mark.long
def test_onnx_of_any_size(trained, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime', reason='pip install onnx onnxruntime')
    report = export_pruned(
        *(trained / 'own.py', trained / 'epoch_3.pth', tmp_path / 'slim'),
        **dict(onnx=True, dynamic_size=True, rounds=1),
    )
    found = report['onnx']['model.onnx']
    assert found['inputs'] == ['batch', 3, 'height', 'width']
    assert found['outputs'][0] == ['batch', 10, 'output_0_size_2', 'output_0_size_3']
    assert found['difference'] < 1e-5
    model = init_pruned_detector(trained / 'own.py', trained / 'epoch_3.pth')
    session = onnxruntime.InferenceSession(
        str(tmp_path / 'slim' / 'model.onnx'), providers=['CPUExecutionProvider']
    )
    for size in ((96, 96), (64, 224)):  # neither of them was traced or compared
        inputs = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected = [t for level in model(inputs, mode='tensor') for t in level]
        given = session.run(None, {'input': inputs.numpy()})
        for a, b in zip(given, expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_detectors(name, image, tmp_path, capsys):
    """Those of the configs at 0.4 of their parameters: the boxes, the files, the ONNX files."""
    try:
        import onnxruntime  # noqa: F401

        onnx = True
    except ImportError:
        onnx = False
    config = ROOT / 'configs' / DETECTORS[name][0]
    file = pruned(config, tmp_path / 'pruned.pth', 0.4)
    report = export_pruned(config, file, tmp_path / 'slim', onnx=onnx, rounds=5)
    without_plugin(tmp_path, 'find', image, tmp_path / 'out.pth', tmp_path / 'slim')
    (found,) = torch.load(tmp_path / 'out.pth')
    expected = with_plugin(config, file, image)
    assert len(expected['scores'])
    for way in ('boxes', 'copied', 'inferencer'):
        assert same(found[way], expected), way
    ratio = report['parameters']['slim'] / report['parameters']['dense']
    weights = report['bytes']['weights']
    assert ratio <= 0.4
    assert weights['slim'] / weights['dense'] == pytest.approx(ratio, abs=0.01)
    for onnx_file in report.get('onnx', {}).values():
        assert onnx_file['difference'] < 1e-4
    with capsys.disabled():
        print(f'\n{name}: {len(expected["scores"])} boxes\n{format_table(report)}')
