# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The detectors' configs as they are, through all three phases, on a handful of small images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

pytest.importorskip('mmdet')

from builtin_sets.tiny_voc import TINY_VOC_CLASSES, build_tiny_voc
from mmdet_adasap.apis import build_dense, load_pruned
from mmdet_adasap.env import find_tool

ROOT = Path(__file__).parents[2]
# Those of classifiers are trained in test_configs_train_classifiers.py.
ADASAP = sorted((ROOT / 'configs').rglob('adasap_*_voc0712.py'))
CLASSES = (*TINY_VOC_CLASSES, *(f'not there {i}' for i in range(20 - len(TINY_VOC_CLASSES))))
"""As many as VOC has, for the heads of the configs."""
LARGEST = 320
"""Side of the images, for detectors that are not made for one size."""


def smaller(value: object, data: str) -> object:
    """The same settings on other data, with smaller images, and from random weights."""
    if isinstance(value, list | tuple):
        return type(value)(smaller(item, data) for item in value)
    if not isinstance(value, dict):
        return value
    made = {key: smaller(item, data) for key, item in value.items() if key != 'init_cfg'}
    if 'ImageSets' in str(made.get('ann_file')):
        split = 'val' if made.get('test_mode') else 'train'
        made |= dict(
            data_root=data,
            ann_file=f'VOC2007/ImageSets/Main/{split}.txt',
            data_prefix=dict(sub_data_root='VOC2007/'),
            metainfo=dict(classes=CLASSES),
        )
    if made.get('type') == 'RepeatDataset':
        made['times'] = 1
    return made


def small_run(path: Path, data: str) -> Config:
    cfg = Config.fromfile(path)
    settings = smaller(cfg.to_dict(), data)
    if not path.parent.name.startswith('ssd'):
        settings = with_small_images(settings)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        settings[loader] |= dict(batch_size=2, num_workers=0, persistent_workers=False)
    settings['train_cfg']['max_epochs'] = 3
    settings['train_cfg']['val_interval'] = 3
    settings['load_from'] = None
    settings['default_hooks']['adasap'] |= dict(warmup=1, prune=1, interval=1)
    settings['default_hooks']['checkpoint']['interval'] = 3
    return Config(settings)


def with_small_images(value: object) -> object:
    if isinstance(value, list | tuple):
        sides = all(isinstance(item, int) for item in value) and len(value) == 2
        if sides and min(value) > LARGEST:
            return type(value)([LARGEST, LARGEST])
        return type(value)(with_small_images(item) for item in value)
    if isinstance(value, dict):
        return {key: with_small_images(item) for key, item in value.items()}
    return value


@pytest.mark.slow
@pytest.mark.parametrize('path', ADASAP, ids=[path.parent.name for path in ADASAP])
def test_trains_through_the_cut(path, tmp_path):
    build_tiny_voc(tmp_path / 'data', train=4, val=2, test=1)
    cfg = small_run(path, f'{tmp_path}/data/VOCdevkit/')
    cfg.dump(tmp_path / 'config.py')
    done = subprocess.run(
        [sys.executable, find_tool('train'), tmp_path / 'config.py', '--work-dir', tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
    )
    assert not done.returncode, done.stderr[-3000:]
    model = build_dense(path)
    structure = load_pruned(model, str(tmp_path / 'epoch_3.pth'))
    assert structure['phase'] == 'finetune'
    target = cfg.default_hooks.adasap.target.params
    assert 0.9 * target < structure['reached']['params'] <= target
