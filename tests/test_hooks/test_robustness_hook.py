# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""mPC in training, on a few images, and a training that does not notice."""

from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.evaluation.functional import mean_ap
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from _utils.processes import in_processes
from builtin_sets.tiny_voc import build_tiny_voc
from mmdet_adasap.hooks import RobustnessHook
from mmdet_adasap.robustness.corruptions import weather as frost_photos
from mmdet_adasap.robustness.metrics import build_adapter
from mmdet_adasap.robustness.test_set import build_test_set

SETTINGS = dict(type='RobustnessHook', corruptions=['fog', 'contrast'], severities=[2], subset=3)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('data')
    build_tiny_voc(folder, seed=1, train=8, val=5, test=2, size=96)
    return f'{folder}/VOCdevkit/'


def settings(data: str, work_dir, epochs: int = 2, every: int = 1, **hooks: dict) -> Config:
    from _utils import seeing_detector  # noqa: F401

    config = Config.fromfile('configs/demo/dense_yolox_tiny-voc.py')
    config.model = dict(type='SeeingDetector')
    for split in ('train', 'val', 'test'):
        config[f'{split}_dataloader'].dataset.data_root = data
        config[f'{split}_dataloader'].batch_size = 4
    # Chance has to come from the training's own generator to show a hook that draws from it.
    flip = dict(type='RandomFlip', prob=0.5)
    config.train_dataloader.dataset.pipeline.insert(3, flip)
    config.train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=every)
    config.param_scheduler = []
    config.default_hooks.update(hooks)
    config.update(work_dir=str(work_dir), log_level='ERROR', experiment_name=work_dir.name)
    return config


def train(data: str, work_dir, **changed) -> Runner:
    runner = Runner.from_cfg(settings(data, work_dir, **changed))
    runner.train()
    return runner


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch, request):
    # VOCMetric starts four processes for each validation.
    monkeypatch.setattr(mean_ap, 'Pool', ThreadPool)
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.long
def test_logs_and_leaves_training_alone(data, tmp_path):
    plain = train(data, tmp_path / 'plain', epochs=3, every=2)
    hook = dict(SETTINGS, interval=2)
    logged = train(data, tmp_path / 'logged', epochs=3, every=2, robustness=hook)
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, logged.model.state_dict()[name]), name
    scalars = logged.message_hub.log_scalars
    assert len(scalars['val/robustness/mPC'].data[0]) == 1  # after epoch 2, not after 3
    assert 'val/robustness/mPC' not in plain.message_hub.log_scalars
    hook = next(hook for hook in logged.hooks if isinstance(hook, RobustnessHook))
    assert len(hook._built[0].images) == 3


@pytest.mark.long
def test_tests_the_moving_average_and_can_choose_the_best(data, tmp_path, monkeypatch):
    """What is tested has to be what validation sees."""
    tested = []

    def test(self, runner: Runner) -> dict:
        tested.append({k: v.clone() for k, v in runner.model.state_dict().items()})
        return {'robustness/mPC': float(len(tested))}

    monkeypatch.setattr(RobustnessHook, '_test', test)
    runner = train(
        data,
        tmp_path / 'ema',
        robustness=dict(SETTINGS),
        ema=dict(type='EMAHook', momentum=0.5, priority=49),
        checkpoint=dict(
            type='CheckpointHook', interval=1, save_best='robustness/mPC', rule='greater'
        ),
    )
    average = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, tested[-1][name]), name
    assert list((tmp_path / 'ema').glob('best_robustness_mPC_epoch_2.pth'))


def test_figures_are_those_of_the_whole_engine(data, tmp_path):
    """On all images, clean is what validation itself says."""
    runner = train(data, tmp_path / 'run', epochs=1, robustness=dict(SETTINGS, subset=None))
    scalars = runner.message_hub.log_scalars
    clean = scalars['val/robustness/clean'].current()
    assert clean == pytest.approx(scalars['val/pascal_voc/mAP'].current(), abs=1e-12)
    assert 0 <= scalars['val/robustness/mPC'].current() <= 1


@pytest.mark.long
@pytest.mark.parametrize('key', ['robustness/mPC', 'robustness/rPC'])
def test_validations_without_a_test_choose_no_checkpoint(data, tmp_path, monkeypatch, key):
    """Nor does one of a model that detects nothing, which has no rPC."""
    figures = iter([(0.0, {}), (0.6, {'robustness/rPC': 0.6})])

    def test(self, runner: Runner) -> dict:
        mpc, more = next(figures)
        return {'robustness/mPC': mpc, **more}

    monkeypatch.setattr(RobustnessHook, '_test', test)
    best = dict(type='CheckpointHook', save_best=key, rule='greater', interval=10)
    train(
        data,
        tmp_path / 'run',
        epochs=5,
        robustness=dict(SETTINGS, interval=2),
        checkpoint=best,
    )
    name = key.replace('/', '_')
    assert [file.name for file in (tmp_path / 'run').glob('best_*')] == [
        f'best_{name}_epoch_4.pth'
    ]


@pytest.mark.long
def test_a_figure_that_the_hook_does_not_give_chooses_no_checkpoint(data, tmp_path):
    best = dict(type='CheckpointHook', save_best='robustness/mpc', rule='greater')
    config = settings(data, tmp_path / 'run', robustness=dict(SETTINGS), checkpoint=best)
    with pytest.raises(ValueError, match=r"save_best='robustness/mpc' .*gives robustness/clean"):
        Runner.from_cfg(config).train()


class ReachedError(Exception):
    """Raised where the first step would begin."""


@pytest.fixture
def no_step(monkeypatch):
    def step(self, *_, **__) -> None:
        raise ReachedError

    monkeypatch.setattr('_utils.seeing_detector.SeeingDetector.train_step', step)


class TestBeforeTheFirstStep:
    def start(self, data, work_dir, more: dict | None = None, **changed) -> None:
        config = settings(data, work_dir, robustness={**SETTINGS, **changed})
        config.merge_from_dict(more or {})
        runner = Runner.from_cfg(config)
        self.hook = next(hook for hook in runner.hooks if isinstance(hook, RobustnessHook))
        runner.train()

    def test_larger_subset_takes_all(self, data, tmp_path, no_step):
        with pytest.raises(ReachedError):
            self.start(data, tmp_path / 'run', subset=100)
        assert len(self.hook._built[0].images) == 5

    def test_average_that_would_not_be_tested(self, data, tmp_path, no_step):
        """In custom_hooks behind an EMAHook of mmpretrain's usual priority."""
        ema = dict(type='EMAHook', priority='ABOVE_NORMAL')
        config = settings(data, tmp_path / 'run')
        config.custom_hooks = [ema, SETTINGS]
        with pytest.raises(ValueError, match='EMAHook comes before RobustnessHook'):
            Runner.from_cfg(config).train()
        config.custom_hooks.reverse()
        with pytest.raises(ReachedError):
            Runner.from_cfg(config).train()

    def test_evaluator_whose_p_is_not_known(self, data, tmp_path, no_step):
        more = {'val_evaluator.metric': 'recall'}
        with pytest.raises(ValueError, match='name it with metric of RobustnessHook'):
            self.start(data, tmp_path / 'run', more)

    def test_another_figure(self, data, tmp_path, no_step):
        more = {'val_evaluator.metric': 'recall'}
        with pytest.raises(ReachedError):
            self.start(data, tmp_path / 'run', more, metric='pascal_voc/recall', scale=0.01)
        assert self.hook._built[1].scale == 0.01

    def test_metric_that_takes_no_part_of_its_images(self, data, tmp_path, no_step):
        (tmp_path / 'all.odgt').write_text('{}\n' * 5)
        file = str(tmp_path / 'all.odgt')
        metric = dict(_delete_=True, type='CrowdHumanMetric', ann_file=file)
        more = {'val_evaluator': metric}
        with pytest.raises(ValueError, match='all 5 images of its ann_file, and 3 were'):
            self.start(data, tmp_path / 'run', more, metric='crowd_human/mAP')

    def test_no_photographs_of_frost(self, data, tmp_path, no_step, monkeypatch):
        frost_photos._photo.cache_clear()
        frost_photos._enlarged_photo.cache_clear()
        monkeypatch.setattr(frost_photos, 'package_folder', lambda name: None)
        with pytest.raises(FileNotFoundError, match='frost needs photographs'):
            self.start(data, tmp_path / 'run', corruptions=['fog', 'frost'])

    def test_runner_without_a_config(self, data, tmp_path, no_step):
        config = settings(data, tmp_path / 'run')
        runner = Runner.from_cfg(config)
        hook = RobustnessHook(subset=3)
        runner.register_hook(hook)
        runner.cfg.pop('val_dataloader')
        with pytest.raises(ValueError, match='which lacks them: make the Runner with'):
            runner.train()


@pytest.mark.long
def test_fp16_as_validation_has_it(data, tmp_path, monkeypatch):
    from _utils import seeing_detector

    seen = []
    forward = seeing_detector.SeeingDetector.forward

    def look(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'predict':
            # is_autocast_enabled('cpu') is not in every supported PyTorch.
            seen.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype != torch.float32)
        return forward(self, inputs, data_samples, mode)

    monkeypatch.setattr(seeing_detector.SeeingDetector, 'forward', look)
    config = settings(data, tmp_path / 'run', epochs=1, robustness=dict(SETTINGS))
    config.val_cfg.fp16 = True
    Runner.from_cfg(config).train()
    assert len(seen) == 2 + 3  # batches of validation, and cells
    assert all(seen)


@pytest.mark.long
def test_iterations_are_counted_where_the_loop_counts_them(data, tmp_path, monkeypatch):
    tested = []
    monkeypatch.setattr(
        RobustnessHook, '_test', lambda self, runner: tested.append(runner.iter) or {}
    )
    config = settings(data, tmp_path / 'run', robustness=dict(SETTINGS, interval=4))
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=2)
    Runner.from_cfg(config).train()
    assert tested == [4, 8]


@pytest.mark.long
@pytest.mark.parametrize('where', ['scoring', 'figures'])
def test_error_of_rank_0_ends_both(data, tmp_path, where):
    root = str(Path.cwd())
    errors = in_processes(error_in_one_of_two, tmp_path, root, data, where)
    assert errors[0] == 'ZeroDivisionError'
    assert errors[1] == 'OtherProcessError: rank 0 has stopped with ZeroDivisionError: on purpose'


def error_in_one_of_two(root: str, data: str, where: str) -> str:
    import os

    from _utils.seeing_detector import SeeingDetector

    os.chdir(root)

    def fail(*_) -> None:
        raise ZeroDivisionError('on purpose')

    with DefaultScope.overwrite_default_scope('mmdet'):
        config = settings(data, Path('unused'))
        hook = RobustnessHook(corruptions=['fog', 'contrast'], severities=[2], subset=None)
        test_set = build_test_set({'a': config.val_dataloader})
        adapter = build_adapter(config.val_evaluator, test_set.metainfo)
        hook._built = test_set, adapter, 2
        if where == 'scoring':
            adapter.score = fail
        else:
            hook._figures = fail
        try:
            hook._test(SimpleNamespace(model=SeeingDetector().eval(), val_loop=None))
        except ZeroDivisionError:
            return 'ZeroDivisionError'
        except RuntimeError as error:
            return f'{type(error).__name__}: {error}'
    return ''


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(corruptions=['saturate']), 'mPC is over corruptions of the benchmark'),
        (dict(interval=0), 'interval=0 must be an integer of at least 1'),
        (dict(subset=0), 'subset=0 must be'),
        (dict(corruptions=['fogg']), "did you mean 'fog'"),
        (dict(severities=[6]), 'severity=6'),
        (dict(corruptions=[]), 'must name one at least'),
        (dict(interval=True), 'interval=True must be an integer of at least 1'),
        (dict(interval=None), 'interval=None must be an integer of at least 1'),
        (dict(subset=2.0), 'subset=2.0 must be an integer of at least 1, or None'),
        (dict(severities=[True]), r'^RobustnessHook.severities: severity=True must be an int'),
        (dict(corruptions=[3]), r'^RobustnessHook.corruptions: corruption=3 must be a str'),
        (dict(seed=-1), '^RobustnessHook.seed=-1 must be an integer of at least 0'),
        (dict(seed=True), 'seed=True must be'),
        (dict(seed=None), 'seed=None must be'),
        (dict(num_workers=-1), 'num_workers=-1 must be an integer of at least 0'),
        (dict(num_workers='2'), "num_workers='2' must be"),
        (dict(metric=3), 'metric=3 must be a str'),
        (dict(scale=0), 'scale=0 must be a number above 0'),
        (dict(scale=True), 'scale=True must be a number above 0'),
        (dict(scale=float('nan')), 'scale=nan must be'),
    ],
)
def test_refused(changed, message):
    arguments = {**SETTINGS, **changed}
    arguments.pop('type')
    with pytest.raises((TypeError, ValueError), match=message):
        RobustnessHook(**arguments)


def test_a_model_that_finds_nothing_is_said():
    said = []
    runner = SimpleNamespace(logger=SimpleNamespace(warning=said.append))
    hook = RobustnessHook(corruptions=['fog'])
    score = SimpleNamespace(value=0.0)
    cells = [
        SimpleNamespace(condition=condition, scores={'model': score}, unreadable=[])
        for condition in hook.conditions
    ]
    figures = hook._figures(runner, cells)
    assert figures == {'robustness/clean': 0.0, 'robustness/mPC': 0.0}
    assert said == ['RobustnessHook: P is 0 on clean images, so there is no robustness/rPC']


def test_a_condition_that_is_named_twice_is_tested_once():
    hook = RobustnessHook(corruptions=['fog', 'snow', 'fog'], severities=[2, 2])
    assert [str(each) for each in hook.conditions] == ['clean images', 'fog 2', 'snow 2']


def test_arguments_that_there_are_not():
    with pytest.raises(
        TypeError, match=r"^RobustnessHook: unexpected 'subest'; did you mean 'subset"
    ):
        RobustnessHook(subest=3)
    with pytest.raises(
        TypeError, match=r"^RobustnessHook: unexpected 'x'; it takes interval, corr"
    ):
        RobustnessHook(x=3)


def test_run_without_validation(data, tmp_path):
    config = settings(data, tmp_path / 'run', robustness=dict(SETTINGS))
    config.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
    config.train_cfg.pop('val_interval')
    with pytest.raises(ValueError, match='RobustnessHook runs after validations'):
        Runner.from_cfg(config).train()
