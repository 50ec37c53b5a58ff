# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re
import runpy
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner

from _utils.controls import ARMS, control_name, control_text, copy_with_controls, plain_command
from mmdet_adasap.apis import build_dense
from mmdet_adasap.distributions import package_folder
from mmdet_adasap.env import find_tool
from mmdet_adasap.errors import LatencyTableError
from mmdet_adasap.hooks import LATENCY_IMPORTANCE
from mmdet_adasap.pruning import MagnitudeImportance, TaylorImportance
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
# Those of the study are tested with tools/study.py.
CONFIGS = sorted(
    p for p in (ROOT / 'configs').rglob('*.py') if p.parent.name not in ('_base_', 'study')
)
CLASSIFIERS = [
    p
    for p in CONFIGS
    if p.parent.name in ('resnet', 'mobilenet_v1', 'mobilenet_v2', 'deit')
    or p.stem.endswith('_tiny-imagenet')
]
ADASAP = [path for path in CONFIGS if path.name.startswith('adasap_')]
VARIANTS = [path for path in CONFIGS if path.name.startswith('adasap-')]
LATENCIES = [path for path in VARIANTS if path.name.startswith('adasap-l_')]
CONTROLS = [path for path in CONFIGS if path.name.startswith('control')]
WITH_FILES = ('ssd512_r50_8xb16-800e_voc0712.py', 'resnet50_8xb128-coslr-90e_in1k.py')
"""Models whose controls are files; those of the others are written by who needs them."""
DENSE = [path for path in CONFIGS if path not in ADASAP + VARIANTS + CONTROLS]
IN_DEMOS = {
    'yolox_tiny-voc.py': ['control'],
    'resnet18_tiny-imagenet.py': ['control-plain', 'control-sam'],
}


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT / 'configs')) for path in paths]


def each(paths: list[Path]) -> Iterator[Path]:
    """Go through configs in one test; pytest shows what is printed last where that fails."""
    assert paths
    for path in paths:
        print(path.relative_to(ROOT / 'configs'))
        yield path


@cache
def read(path: Path) -> Config:
    return Config.fromfile(path)


def schedulers(cfg: Config) -> list:
    """One alone needs no list."""
    found = cfg.param_scheduler
    return found if isinstance(found, list) else [found]


def adasap_of(control: Path) -> Path:
    """The config that a control or variant is compared with."""
    return control.with_name('adasap_' + control.name.partition('_')[2])


@pytest.fixture(scope='session')
def with_controls(tmp_path_factory) -> Path:
    """configs/ where every control is a file, as the READMEs tell to write it."""
    return copy_with_controls(tmp_path_factory.mktemp('controls'))


def test_checkpoints_are_whole():
    """In every run, and with what the base config says about them."""
    for path in each(CONFIGS):
        checkpoint = read(path).default_hooks.checkpoint
        assert checkpoint.type == 'AtomicCheckpointHook'
        assert checkpoint.interval >= 1
        assert isinstance(HOOKS.build(checkpoint), CheckpointHook)


def test_dense_configs_train_without_the_method():
    for path in each(DENSE):
        cfg = read(path)
        assert cfg.optim_wrapper.get('type', 'OptimWrapper') == 'OptimWrapper'
        assert cfg.optim_wrapper.optimizer.type == ('AdamW' if 'deit' in path.name else 'SGD')
        assert 'adasap' not in cfg.default_hooks
        # A pruned checkpoint is refused where the plugin is imported.
        assert cfg.custom_imports.imports == ['mmdet_adasap']


DETECTORS = [path for path in DENSE if path not in CLASSIFIERS]


@pytest.mark.parametrize('path', DETECTORS, ids=names(DETECTORS))
def test_learns_and_tests_on_voc(path):
    cfg = read(path)
    datasets = [cfg.train_dataloader.dataset]
    while 'dataset' in datasets[0] or 'datasets' in datasets[0]:
        datasets = datasets[0].get('datasets') or [datasets[0].dataset]
    if path.parent.name != 'demo':
        assert [d.ann_file for d in datasets] == [
            'VOC2007/ImageSets/Main/trainval.txt',
            'VOC2012/ImageSets/Main/trainval.txt',
        ]
        datasets += [cfg.val_dataloader.dataset, cfg.test_dataloader.dataset]
        for dataset in datasets:
            assert dataset.type == 'VOCDataset'
            assert dataset.data_root == 'data/VOCdevkit/'
            assert dataset.ann_file.startswith(dataset.data_prefix.sub_data_root)
        for dataset in datasets[-2:]:
            assert dataset.ann_file == 'VOC2007/ImageSets/Main/test.txt'
            assert dataset.test_mode
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert (evaluator.type, evaluator.eval_mode) == ('VOCMetric', '11points')


SHIPPED = [path for path in CONFIGS if path.parent.name != 'demo']


def test_the_lowest_rate_follows_the_scaled_one():
    """train.py --auto-scale-lr changes the rate of the optimizer alone."""
    for path in each(SHIPPED):
        assert not any(scheduler.get('eta_min') for scheduler in schedulers(read(path)))


@pytest.mark.parametrize('path', ADASAP, ids=names(ADASAP))
class TestAdaSAP:
    def test_model_and_method_build(self, path):
        cfg = read(path)
        model = build_dense(cfg)
        assert cfg.optim_wrapper.type == 'AdaSAPOptimWrapper'
        assert OPTIM_WRAPPERS.get(cfg.optim_wrapper.type) is not None
        hook = HOOKS.build(cfg.default_hooks.adasap).settings
        assert isinstance(hook.perturbation, AdaptivePerturbation)
        assert isinstance(hook.finetune, UniformPerturbation)
        for perturbation in (hook.perturbation, hook.finetune):
            perturbation.attach(model)

    def test_starts_from_what_the_dense_config_leaves(self, path):
        """Or from weights that mmpretrain offers for the model of the dense config."""
        cfg = read(path)
        stem = path.stem.removeprefix('adasap_')
        (dense,) = [p for p in DENSE if p.parent == path.parent and p.stem.endswith(stem)]
        start = read(dense)
        assert start.model == cfg.model
        if cfg.load_from.startswith('https://'):
            offered = package_folder('mmpretrain') / '.mim/configs' / path.parent.name
            weights = cfg.load_from.partition('/mmclassification/')[2]
            assert weights
            assert weights in (offered / 'metafile.yml').read_text()
        else:
            epochs = start.train_cfg.max_epochs
            assert cfg.load_from == f'work_dirs/{dense.stem}/epoch_{epochs}.pth'
        assert start.train_cfg.max_epochs % start.default_hooks.checkpoint.get('interval', 1) == 0

    def test_slim_model_recovers_at_a_high_rate(self, path):
        """The cut lies before the end, before milestones, and before a cosine is half down."""
        cfg = read(path)
        done = cfg.default_hooks.adasap.warmup + cfg.default_hooks.adasap.prune
        if not cfg.default_hooks.adasap.get('by_epoch', True):
            done /= 75  # iterations of an epoch in the demo
        assert done < cfg.train_cfg.max_epochs
        lowering = [s for s in schedulers(cfg) if s.get('milestones') or 'T_max' in s]
        assert lowering
        for scheduler in lowering:
            for milestone in scheduler.get('milestones', ()):
                assert done <= milestone < cfg.train_cfg.max_epochs
            if 'T_max' in scheduler:
                assert done < scheduler['begin'] + scheduler['T_max'] / 2

    def test_controls_are_there(self, path):
        """As files where they are run, else as the README of the folder says."""
        model = path.name.removeprefix('adasap_')
        if path.parent.name == 'demo' or model in WITH_FILES:
            for arm in IN_DEMOS.get(model) or [f'control-{arm}' for arm in ARMS]:
                assert path.with_name(f'{arm}_{model}') in CONTROLS
            return
        assert not [control for control in CONTROLS if adasap_of(control) == path]
        place = f'# configs/{path.parent.name}/{control_name(path, "sam")}\n'
        readme = (path.parent / 'README.md').read_text()
        assert f'```python\n{place}{control_text(path, "sam")}```' in readme


SHIPPED_ADASAP = [path for path in ADASAP if path.parent.name != 'demo']
EVERY_CONTROL = [
    *[path.relative_to(ROOT / 'configs') for path in CONTROLS if path.parent.name == 'demo'],
    *[Path(path.parent.name) / control_name(path, arm) for path in SHIPPED_ADASAP for arm in ARMS],
]


@pytest.mark.parametrize('control', EVERY_CONTROL, ids=[str(control) for control in EVERY_CONTROL])
class TestControls:
    @pytest.fixture
    def path(self, control, with_controls):
        return with_controls / control

    def test_only_the_perturbations_differ(self, path):
        """Same criterion, budget, schedule, steps, data and start as AdaSAP."""
        control, adasap = (read(p).to_dict() for p in (path, adasap_of(path)))
        control.pop('control', None)
        for cfg in (control, adasap):
            for key in ('perturbation', 'finetune'):
                cfg['default_hooks']['adasap'].pop(key)
        assert control == adasap

    def test_perturbations_are_those_of_the_name(self, path):
        hook, adasap = (
            HOOKS.build(read(p).default_hooks.adasap).settings for p in (path, adasap_of(path))
        )
        arm = path.name.partition('_')[0].partition('-')[2] or 'plain'
        if arm == 'plain':
            assert hook.perturbation is hook.finetune is None
            return
        kind = AdaptivePerturbation if arm == 'adaptive' else UniformPerturbation
        for ours, theirs in (
            (hook.perturbation, adasap.perturbation),
            (hook.finetune, adasap.finetune),
        ):
            assert type(ours) is kind
            assert ours.asam == (arm != 'sam')
            assert ours.scope == theirs.scope
            assert getattr(ours, 'parameters', 'weights') == 'weights'
        if arm == 'asam':
            assert vars(hook.finetune) == vars(adasap.finetune)
        if arm == 'adaptive':
            assert vars(hook.perturbation) == vars(adasap.perturbation)


def test_controls_that_are_files_are_what_the_readme_writes():
    for path in CONTROLS:
        if path.parent.name != 'demo':
            arm = path.name.partition('_')[0].partition('-')[2]
            lines = [line for line in path.read_text().splitlines(True) if line.strip()]
            assert ''.join(lines[1:]) == control_text(adasap_of(path), arm)


@pytest.mark.parametrize('path', SHIPPED_ADASAP, ids=names(SHIPPED_ADASAP))
def test_plain_control_by_options_equals_its_file(path, with_controls, tmp_path, monkeypatch):
    """What train.py of mmdet or mmpretrain makes of the command in the README."""
    monkeypatch.chdir(ROOT)

    class Captured(Exception):  # noqa: N818  # it is no error
        pass

    def capture(cfg: Config) -> None:
        raise Captured(cfg.to_dict())

    monkeypatch.setattr(Runner, 'from_cfg', capture)
    tool = find_tool('mmpretrain::train' if path in CLASSIFIERS else 'train')
    file = with_controls / path.parent.name / control_name(path, 'plain')

    def train(*arguments: str) -> dict:
        monkeypatch.setattr(sys, 'argv', ['train.py', *arguments])
        with pytest.raises(Captured) as captured:
            runpy.run_path(tool, run_name='__main__')
        return captured.value.args[0]

    command = plain_command(path)
    by_options = train(*command)
    by_file = train(str(file), *[option for option in command if option == '--auto-scale-lr'])
    assert by_options['default_hooks']['adasap']['perturbation'] is None
    assert by_file.pop('control') == dict(perturbation=None, finetune=None)
    assert by_options.pop('work_dir') == f'work_dirs/{file.stem}'
    assert Path(by_file.pop('work_dir')) == Path('work_dirs') / file.stem
    assert by_options == by_file


def limits(hook: dict) -> dict[str, float]:
    """What remains of what, without the table of a latency."""
    return {key: value for key, value in hook['target'].items() if key != 'table'}


def test_variants_change_target_or_criterion_alone():
    """The percentage that remains, or the criterion, is in the name of the file."""
    for path in each([path for path in VARIANTS if path not in LATENCIES]):
        variant = path.name.partition('_')[0].removeprefix('adasap-')
        cfg, adasap = (read(p).to_dict() for p in (path, adasap_of(path)))
        ours, theirs = (c['default_hooks']['adasap'] for c in (cfg, adasap))
        # Those of ResNet-50 on ImageNet are the paper's, which tells the two criteria apart.
        by_magnitude = variant != 'taylor' and 'resnet50' in path.name
        criterion = MagnitudeImportance if by_magnitude else TaylorImportance
        assert type(HOOKS.build(ours).settings.importance) is criterion
        if variant != 'taylor':
            assert ours['target'] == dict(params=int(variant.removeprefix('p')) / 100)
            assert ours['target'] != theirs['target']
        for settings in (ours, theirs):
            settings.pop('importance' if variant == 'taylor' else 'target')
        assert cfg == adasap


@pytest.mark.parametrize('path', LATENCIES, ids=names(LATENCIES))
class TestLatency:
    def test_the_rest_is_as_for_parameters(self, path):
        """But for round_to, which is then the step of the device, and the criterion."""
        cfg, adasap = (read(p).to_dict() for p in (path, adasap_of(path)))
        ours, theirs = (c['default_hooks']['adasap'] for c in (cfg, adasap))
        assert limits(ours) == dict(latency=0.6)
        assert ours['round_to'] is None
        assert ours['importance'] == dict(type=LATENCY_IMPORTANCE)
        for settings in (ours, theirs):
            for key in ('target', 'round_to', 'importance'):
                settings.pop(key)
        assert cfg == adasap

    def test_comment_says_how_to_make_the_table(self, path):
        """Of the dense model, with which the run starts, into the file that the config reads."""
        comment = re.sub(r'(?m)^# ?', '', path.read_text().partition('_base_')[0])
        (call,) = re.findall(r'adasap latency (\S+)(?: \\\n| )\s*--out (\S+)', comment)
        config, table = call
        assert table == read(path).default_hooks.adasap.target.table
        assert read(ROOT / config).model == read(path).model
        assert ROOT / config in DENSE

    def test_without_the_table_one_line_says_what_to_do(self, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        hook = read(path).default_hooks.adasap
        with pytest.raises(LatencyTableError) as refused:
            HOOKS.build(hook)
        table = hook.target.table
        assert f'target.table: {table}: cannot be read' in str(refused.value)
        assert f'make it with adasap latency CONFIG --out {table}' in str(refused.value)
        assert '\n' not in str(refused.value)


IN1K = [path for path in CLASSIFIERS if path.stem.endswith('_in1k')]


def test_imagenet_recipe():
    """Batches of 1024 for 90 epochs, 10 before and 20 while pruning, and SGD's settings."""
    for path in each(IN1K):
        cfg = read(path)
        assert cfg.train_cfg.max_epochs == 90
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            assert (loader.dataset.type, loader.dataset.data_root) == ('ImageNet', 'data/imagenet')
        assert cfg.model.head.loss.type == 'LabelSmoothLoss'
        assert cfg.model.head.loss.label_smooth_val == 0.1
        rising, falling = cfg.param_scheduler
        assert (rising.type, rising.end, falling.begin) == ('LinearLR', 8, 8)
        assert (falling.type, falling.end) == ('CosineAnnealingLR', 90)
        optimizer = cfg.optim_wrapper.optimizer
        if optimizer.type == 'SGD':
            assert (optimizer.lr, optimizer.momentum) == (1.024, 0.875)
            assert optimizer.weight_decay == 3.05e-5
        hook = cfg.default_hooks.get('adasap')
        assert hook is None or (hook.warmup, hook.prune, hook.interval) == (10, 20, 30)


def test_cifar_trains_on_one_gpu():
    """In batches that fit one, and in a third of the epochs that phases have on ImageNet."""
    cifar = [path for path in CLASSIFIERS if path.stem.endswith('_cifar10')]
    assert len(cifar) == 1 + 2
    for path in cifar:
        cfg = read(path)
        assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 128
        assert cfg.train_cfg.max_epochs == schedulers(cfg)[0].end == 30
        assert cfg.model.backbone.type == 'ResNet_CIFAR'
        hook = cfg.default_hooks.get('adasap')
        assert hook is None or (hook.warmup, hook.prune) == (3, 7)


def test_models_share_the_method():
    """Phases, target and interval are a model's own, and ResNet-50 has the paper's criterion."""
    own = ('warmup', 'prune', 'target', 'interval')
    hooks = [read(path).default_hooks.adasap for path in SHIPPED_ADASAP]
    shared = [{k: v for k, v in hook.items() if k not in own} for hook in hooks]
    criteria = [hook.pop('importance')['type'] for hook in shared]
    assert criteria.count('MagnitudeImportance') == 1
    assert criteria.count('TaylorImportance') == len(criteria) - 1
    assert len(shared) == 6 + 6
    assert all(settings == shared[0] for settings in shared)
    assert all(set(own) <= set(hook) for hook in hooks)


def test_readme_shows_the_config_that_is_shipped():
    """The example in the README and configs/ssd300/adasap_ssd300_voc0712.py say the same."""
    readme = (ROOT / 'README.md').read_text()
    code = readme.split("```python\n_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'")[1]
    code = "_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'" + code.split('```')[0]
    shown = Config.fromstring(code, '.py')
    shipped = Config.fromfile(ROOT / 'configs' / 'ssd300' / 'adasap_ssd300_voc0712.py')
    for key in ('custom_imports', 'load_from', 'optim_wrapper', 'default_hooks'):
        assert shown[key] == shipped[key]


def test_every_model_is_in_the_list():
    listed = (ROOT / 'configs' / 'README.md').read_text()
    for path in ADASAP + VARIANTS:
        if path.parent.name != 'demo':
            assert f'({path.parent.name}/{path.name})' in listed
            assert f'({path.parent.name}/README.md)' in listed


FOLDERS = sorted({path.parent for path in CONFIGS})


@pytest.mark.parametrize('folder', FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_folder_has_readme_with_all_configs(folder):
    """With target and schedule, and no result where nobody has trained it."""
    rows = {}
    for line in (folder / 'README.md').read_text().splitlines():
        if found := re.match(r'\| \[(.+?)\]\((.+?)\.py\) \| (.*) \| (.*) \| (.*) \|$', line):
            assert found[1] == found[2]
            rows[found[1]] = found.groups()[2:]
    assert set(rows) == {path.stem for path in folder.glob('*.py')}
    for name, (share, schedule, results) in rows.items():
        cfg = read(folder / f'{name}.py')
        if folder.name != 'demo':
            assert results == 'not trained yet'
            assert schedule.split()[0] == str(cfg.train_cfg.max_epochs)
        if hook := cfg.default_hooks.get('adasap'):
            ((resource, remains),) = limits(hook).items()
            # Parameters are what the head of the table speaks of.
            of = '' if resource == 'params' else f' of the {resource}'
            assert share.split(',')[0] in (f'{remains:g}{of}', f'{remains:.2f}{of}')
            phases = re.search(r'\((\d+), (\d+), (\d+)\)', schedule)
            assert [int(phases[1]), int(phases[2])] == [hook.warmup, hook.prune]
            if hook.get('by_epoch', True):
                assert sum(map(int, phases.groups())) == cfg.train_cfg.max_epochs


METAFILES = [folder / 'metafile.yml' for folder in FOLDERS if folder.name != 'demo']


@pytest.mark.parametrize('path', METAFILES, ids=[path.parent.name for path in METAFILES])
def test_metafile_says_what_the_configs_say(path):
    content = yaml.safe_load(path.read_text())
    (collection,) = content['Collections']
    assert ROOT / collection['README'] == path.parent / 'README.md'
    assert collection['Paper']['URL'] == 'https://arxiv.org/abs/2306.14306'
    models = {ROOT / model['Config']: model for model in content['Models']}
    assert sorted(models) == sorted(path.parent.glob('*.py'))
    for config, model in models.items():
        assert model['Name'] == config.stem
        assert model['In Collection'] == collection['Name']
        assert 'Results' not in model  # nobody has trained it yet
        cfg, metadata = read(config), model['Metadata']
        assert metadata['Epochs'] == cfg.train_cfg.max_epochs
        if hook := cfg.default_hooks.get('adasap'):
            ((resource, remains),) = limits(hook).items()
            of = 'parameters' if resource == 'params' else resource
            assert metadata['Target'] == f'{remains:g} of the {of}'
        else:
            assert metadata['Parameters'] == sum(p.numel() for p in build_dense(cfg).parameters())
