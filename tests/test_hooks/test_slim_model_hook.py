# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Slim checkpoints in runs that test or train on, without AdaSAPHook or with another head."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseTTAModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner, load_checkpoint
from torch import nn

from _utils.adasap_runs import assert_same_weights, build, for_testing, kill_after, train
from _utils.processes import in_processes
from _utils.processes import settings as settings_of_processes
from _utils.toy import MeanLogit, ToyModel, loader, settings, stacked
from mmdet_adasap.apis import load_pruned
from mmdet_adasap.errors import StructureError
from mmdet_adasap.hooks.runner_state import averaged_models
from mmdet_adasap.hooks.slim_model_hook import SlimModelHook
from mmdet_adasap.pruning.structure import META_KEY

CLASSES = 9


class OtherClasses(ToyModel):
    """The toy model with a head for more classes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, CLASSES)


class Averaged(BaseTTAModel):
    """The mean of the logits of an image and of its mirror image."""

    def merge_preds(self, data_samples_list: list) -> list:
        return [
            dict(logits=torch.stack([sample['logits'] for sample in samples]).mean(0))
            for samples in data_samples_list
        ]


def mirrored(samples: list[dict]) -> dict:
    batch = stacked(samples)
    return dict(inputs=[batch['inputs'], batch['inputs'].flip(-1)], labels=[batch['labels']] * 2)


@pytest.fixture(scope='module')
def first(tmp_path_factory) -> Path:
    """A folder with the checkpoints of a run that pruned."""
    folder = tmp_path_factory.mktemp('first')
    train(settings(folder, hook=dict(target=dict(params=0.6))))
    return folder


def structure_in(file: Path) -> dict:
    return torch.load(file, weights_only=False)['meta'][META_KEY]


def plain(cfg: dict) -> dict:
    """The same without anything of ours but the import."""
    del cfg['default_hooks']['adasap']
    if 'optim_wrapper' in cfg:
        cfg['optim_wrapper']['type'] = 'OptimWrapper'
    return cfg


def run_of(cfg: dict, model: nn.Module) -> Runner:
    build.count += 1
    cfg = cfg | dict(experiment_name=f'{Path(cfg["work_dir"]).name}_other_{build.count}')
    return Runner(model=model, **cfg)


def score_of(first: Path, tmp_path: Path, change=lambda cfg: cfg) -> float:
    cfg = change(for_testing(tmp_path, load_from=str(first / 'epoch_6.pth')))
    return build(cfg).test()['score']


class TestWithoutAdaSAPHook:
    @pytest.mark.parametrize('ema', [False, True])
    def test_tests_as_with_it(self, first, tmp_path, ema):
        def change(cfg: dict) -> dict:
            return plain(cfg) | dict(custom_hooks=[dict(type='EMAHook')] if ema else [])

        assert score_of(first, tmp_path, change) == score_of(first, tmp_path)

    @pytest.mark.parametrize('ema', [False, True])
    def test_trains_on_and_resumes(self, first, tmp_path, ema):
        hooks = [dict(type='EMAHook', momentum=0.1, update_buffers=True)] if ema else []
        changes = dict(load_from=str(first / 'epoch_6.pth'), custom_hooks=hooks)
        whole = train(plain(settings(tmp_path / 'whole', **changes)))
        slim = ToyModel()
        load_pruned(slim, changes['load_from'])
        assert sum(p.numel() for p in whole.model.parameters()) == sum(
            p.numel() for p in slim.parameters()
        )
        assert not torch.equal(whole.model.fc.weight, slim.fc.weight)
        load_pruned(ToyModel(), str(tmp_path / 'whole' / 'epoch_6.pth'))

        cfg = plain(settings(tmp_path / 'parts', **changes))
        kill_after(cfg, 15)
        resumed = train(cfg | dict(resume=True, load_from=None))
        assert_same_weights(resumed.model, whole.model)
        for left, right in zip(averaged_models(resumed), averaged_models(whole), strict=True):
            assert_same_weights(left, right)

    @pytest.mark.parametrize('epoch', [1, 2])
    def test_what_is_not_cut_loads_as_any_checkpoint(self, first, tmp_path, epoch):
        cfg = plain(for_testing(tmp_path, load_from=str(first / f'epoch_{epoch}.pth')))
        runner = build(cfg)
        runner.test()
        saved = torch.load(cfg['load_from'], weights_only=False)['state_dict']
        for name, tensor in runner.model.state_dict().items():
            assert torch.equal(tensor, saved[name]), name

    def test_other_model_is_refused(self, first, tmp_path):
        cfg = plain(for_testing(tmp_path, load_from=str(first / 'epoch_6.pth')))
        with pytest.raises(StructureError, match='is of a model of 5444 parameters and'):
            build(cfg, width=4).test()

    def test_is_there_where_it_is_needed(self, tmp_path):
        def count(cfg: dict) -> int:
            return sum(isinstance(hook, SlimModelHook) for hook in build(cfg).hooks)

        assert count(plain(settings(tmp_path))) == 1
        assert count(settings(tmp_path)) == 0
        assert SlimModelHook.__name__ not in HOOKS.module_dict

    def test_without_a_run_the_model_stays_dense(self, first):
        with pytest.raises(StructureError, match='init_pruned_detector'):
            load_checkpoint(ToyModel(), str(first / 'epoch_6.pth'))


class TestOtherHead:
    """A start for other classes: the body is taken, the head is new."""

    @pytest.mark.parametrize('adasap', [False, True])
    def test_training_on(self, first, tmp_path, adasap):
        hook = dict(target=dict(params=0.3))
        cfg = settings(tmp_path, hook=hook, load_from=str(first / 'epoch_6.pth'))
        cfg = cfg if adasap else plain(cfg)
        saved = torch.load(first / 'epoch_6.pth', weights_only=False)['state_dict']
        torch.manual_seed(1)
        runner = run_of(cfg, OtherClasses())
        fresh = copy.deepcopy(runner.model.head)
        runner.load_or_resume()
        for name, tensor in runner.model.state_dict().items():
            if not name.startswith('head.'):
                assert torch.equal(tensor, saved[name]), name
        kept = structure_in(first / 'epoch_6.pth')['keep']['head.weight'][1]
        assert torch.equal(runner.model.head.weight, fresh.weight[:, kept])
        assert torch.equal(runner.model.head.bias, fresh.bias)

        torch.manual_seed(1)
        runner = run_of(cfg, OtherClasses())
        runner.train()
        dense = sum(p.numel() for p in OtherClasses().parameters())
        left = sum(p.numel() for p in runner.model.parameters())
        structure = structure_in(tmp_path / 'epoch_6.pth')
        assert structure['dense']['params'] == dense
        assert structure['reached']['params'] == left / dense
        assert not adasap or left <= 0.3 * dense
        again = OtherClasses()
        load_pruned(again, str(tmp_path / 'epoch_6.pth'))
        assert_same_weights(again, runner.model)

    @pytest.mark.parametrize('epoch', [1, 2])
    def test_from_dense_weights(self, first, tmp_path, epoch):
        """A warm-up checkpoint starts any run, as mmengine's rules for dense ones are."""
        cfg = settings(tmp_path, load_from=str(first / f'epoch_{epoch}.pth'))
        runner = run_of(cfg if epoch == 1 else plain(cfg), OtherClasses())
        runner.train()

    @pytest.mark.parametrize('adasap', [False, True])
    def test_is_no_test(self, first, tmp_path, adasap):
        """Scores of a random head would look like scores; test.py has train_cfg as well."""
        cfg = settings(tmp_path, load_from=str(first / 'epoch_6.pth'))
        cfg |= {
            f'test{key[3:]}': cfg[key] for key in ('val_dataloader', 'val_cfg', 'val_evaluator')
        }
        runner = run_of(cfg if adasap else plain(cfg), OtherClasses())
        with pytest.raises(StructureError, match='is of a model of 5444 parameters and'):
            runner.test()

    def test_body_of_another_width_is_refused(self, first, tmp_path):
        model = OtherClasses()
        model.stem[0] = nn.Conv2d(3, 9, 3, padding=1)
        before = copy.deepcopy(model.state_dict())
        runner = run_of(settings(tmp_path, load_from=str(first / 'epoch_6.pth')), model)
        with pytest.raises(StructureError, match='is of a model of 5444 parameters and'):
            runner.train()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]), name


def with_tta(cfg: dict) -> dict:
    return cfg | dict(test_dataloader=loader(shuffle=False) | dict(collate_fn=mirrored))


def score_with_tta(cfg: dict) -> tuple[float, str]:
    from _utils.processes import build as build_in_process

    runner = build_in_process(with_tta(cfg), lambda: Averaged(ToyModel()))
    return runner.test()['score'], type(runner.model).__name__


class TestTestTimeAugmentation:
    def expected(self, first: Path, tmp_path: Path) -> float:
        model = ToyModel()
        load_pruned(model, str(first / 'epoch_6.pth'))
        cfg = plain(with_tta(for_testing(tmp_path)))
        del cfg['load_from']
        return run_of(cfg, Averaged(model)).test()['score']

    @pytest.mark.parametrize('ema', [False, True])
    @pytest.mark.parametrize('change', [lambda cfg: cfg, plain], ids=['hook', 'import'])
    def test_gives_the_slim_model_s_predictions(self, first, tmp_path, change, ema):
        cfg = for_testing(tmp_path, load_from=str(first / 'epoch_6.pth'))
        cfg['custom_hooks'] = [dict(type='EMAHook')] if ema else []
        runner = run_of(change(with_tta(cfg)), Averaged(ToyModel()))
        assert runner.test()['score'] == self.expected(first, tmp_path)

    @pytest.mark.long
    def test_in_several_processes(self, first, tmp_path):
        cfg = settings_of_processes(tmp_path)
        cfg |= dict(load_from=str(first / 'epoch_6.pth'), test_cfg=dict())
        cfg['test_evaluator'] = dict(type=MeanLogit)
        for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
            del cfg[key]
        for score, kind in in_processes(score_with_tta, tmp_path, cfg):
            assert kind == 'MMDistributedDataParallel'
            assert score == pytest.approx(self.expected(first, tmp_path), rel=1e-6)
