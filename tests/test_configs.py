# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

import pytest

pytest.importorskip('mmdet')

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import HOOKS

from mmdet_adasap.datasets import TINY_VOC_CLASSES

CONFIGS = Path(__file__).parent.parent / 'configs'
PRUNING = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob('adasap_*.py'))


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


def depth(path: Path) -> int:
    """Number of files that a config builds on, along its longest line."""
    bases = Config._get_base_files(str(path))
    paths = [Config._get_cfg_path(base, str(path))[0] for base in bases]
    return max([1 + depth(Path(base)) for base in paths], default=0)


@pytest.mark.parametrize('name', PRUNING)
class TestPruningConfigs:
    def test_most_or_half_of_the_run_fine_tunes(self, name):
        cfg = load(name)
        hook = HOOKS.build(cfg.default_hooks.adasap)
        assert hook.by_epoch
        assert hook.warmup + hook.prune <= cfg.train_cfg.max_epochs / 2

    def test_milestones_lie_behind_the_cut(self, name):
        cfg = load(name)
        cut = cfg.default_hooks.adasap.warmup + cfg.default_hooks.adasap.prune
        milestones = [m for s in cfg.param_scheduler for m in s.get('milestones', ())]
        assert all(milestone >= cut for milestone in milestones)

    def test_starts_from_a_checkpoint_with_two_passes(self, name):
        cfg = load(name)
        assert cfg.load_from
        assert cfg.optim_wrapper.type == 'AdaSAPOptimWrapper'
        assert cfg.optim_wrapper.optimizer.type == 'SGD'  # the base's

    def test_at_most_three_levels(self, name):
        assert depth(CONFIGS / name) <= 3


@pytest.mark.parametrize('name', [name for name in PRUNING if name.endswith('voc0712.py')])
def test_twenty_classes_and_voc_data(name):
    cfg = load(name)
    assert MODELS.build(cfg.model).bbox_head.num_classes == 20
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == 'VOCDataset'
        assert 'VOC2007' in loader.dataset.ann_file
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == 'VOCMetric'


class TestDemoConfigs:
    def test_control_differs_in_the_second_pass_alone(self):
        adasap = load('demo/adasap_yolox_tiny-voc.py').to_dict()
        control = load('demo/control_yolox_tiny-voc.py').to_dict()
        for cfg in (adasap, control):
            cfg['default_hooks']['adasap'].pop('perturbation')
            cfg['default_hooks']['adasap'].pop('finetune')
            cfg['optim_wrapper'].pop('type')
        assert adasap == control

    def test_validates_on_val_and_tests_on_test(self):
        for arm in ('dense', 'adasap', 'control'):
            cfg = load(f'demo/{arm}_yolox_tiny-voc.py')
            files = {k: cfg[f'{k}_dataloader'].dataset.ann_file for k in ('train', 'val', 'test')}
            assert all(file.endswith(f'Main/{split}.txt') for split, file in files.items())
            assert cfg.test_dataloader.dataset.corruption == 'none'

    def test_classes_are_those_of_the_set(self):
        cfg = load('demo/dense_yolox_tiny-voc.py')
        for split in ('train', 'val', 'test'):
            assert cfg[f'{split}_dataloader'].dataset.metainfo.classes == TINY_VOC_CLASSES
        assert cfg.model.bbox_head.num_classes == len(TINY_VOC_CLASSES)
