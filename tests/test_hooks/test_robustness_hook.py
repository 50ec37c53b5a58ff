# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""mPC in training, on a few images, and a training that does not notice."""

from multiprocessing.pool import ThreadPool

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.evaluation.functional import mean_ap
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_adasap.datasets.tiny_voc import build_tiny_voc
from mmdet_adasap.hooks import RobustnessHook

SETTINGS = dict(type='RobustnessHook', corruptions=['fog', 'contrast'], severities=[2], subset=3)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('data')
    build_tiny_voc(folder, seed=1, train=8, val=5, test=2, size=96)
    return f'{folder}/VOCdevkit/'


def settings(data: str, work_dir, epochs: int = 2, every: int = 1, **hooks: dict) -> Config:
    import seeing_detector  # noqa: F401

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
    assert len(hook._parts[0].images) == 3


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


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(interval=0), 'interval=0 must be an int of at least 1'),
        (dict(subset=0), 'subset=0 must be'),
        (dict(corruptions=['fogg']), "did you mean 'fog'"),
        (dict(severities=[6]), 'severity=6'),
        (dict(corruptions=[]), 'must name one at least'),
    ],
)
def test_refused(changed, message):
    arguments = {**SETTINGS, **changed}
    arguments.pop('type')
    with pytest.raises(ValueError, match=message):
        RobustnessHook(**arguments)


def test_run_without_validation(data, tmp_path):
    config = settings(data, tmp_path / 'run', robustness=dict(SETTINGS))
    config.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
    config.train_cfg.pop('val_interval')
    with pytest.raises(ValueError, match='RobustnessHook runs after validations'):
        Runner.from_cfg(config).train()
