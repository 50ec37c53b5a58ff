# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The sets of study.py, and the configs for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SPLITS = ('train', 'val', 'test')
CIFAR_TRAIN, CIFAR_VAL = 500, 100
"""Images of a class that are trained with, and that choose settings; the others are left out."""


class StudySet(NamedTuple):
    """A set of images, and how it is trained.

    Attributes:
        says (str): What it is, in a few words.
        model (str): What its configs are called by.
        tool (str): What trains, as mmdet_adasap.env knows it.
        prepare (Callable): Gets the data root and a folder for files of the study; returns, by
            split, what the config's dataset gets. Exits with a line if the set is not there.
        at_home (bool): Whether the set is made where it is missing.
    """

    says: str
    model: str
    tool: str
    prepare: Callable[[Path, Path], dict[str, dict]]
    at_home: bool = False

    def config(self, kind: str) -> Config:
        """Return the config of 'dense' or 'adasap'."""
        folder, _, model = self.model.rpartition('/')
        return Config.fromfile(CONFIGS / folder / f'{kind}_{model}.py')


def _tiny_voc(root: Path, out: Path) -> dict[str, dict]:
    sys.path.insert(0, str(CONFIGS.parent / 'tools' / 'demo'))
    from builtin_sets.tiny_voc import build_tiny_voc

    build_tiny_voc(root)
    return {key: dict(data_root=f'{root}/VOCdevkit/') for key in SPLITS}


def _bccd(root: Path, out: Path) -> dict[str, dict]:
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        if not (root / folder).is_dir():
            sys.exit(
                f'study.py: --data-root {root}: there is no {folder} in it; get the set with '
                f'git clone https://github.com/Shenggan/BCCD_Dataset, and name its folder BCCD'
            )
    return {key: dict(data_root=f'{root}/') for key in SPLITS}


def _cifar10(root: Path, out: Path) -> dict[str, dict]:
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    for part in ('train', 'test'):
        classes = sorted(path for path in (root / part).glob('*') if path.is_dir())
        if len(classes) != 10:
            sys.exit(
                f'study.py: --data-root {root}: {part} has {len(classes)} folders, and CIFAR-10 '
                f'ten classes; it is read from files as train/airplane/0000.jpg'
            )
        for number, folder in enumerate(classes):
            lines = [
                f'{folder.name}/{file.name} {number}'
                for file in sorted(folder.iterdir())
                if file.suffix in ('.jpg', '.png')
            ]
            if part == 'test':
                lists['test'] += lines
            else:
                lists['train'] += lines[:CIFAR_TRAIN]
                lists['val'] += lines[CIFAR_TRAIN : CIFAR_TRAIN + CIFAR_VAL]
    found = {}
    for split, lines in lists.items():
        file = out / f'{split}.txt'
        file.write_text('\n'.join(lines) + '\n')
        found[split] = dict(data_root=str(root), ann_file=str(file))
    return found


SETS = {
    'tiny_voc': StudySet(
        'the built-in VOC: 200 drawn images with digits', 'demo/yolox_tiny-voc', 'train',
        _tiny_voc, at_home=True,
    ),
    'bccd': StudySet(
        '205 photographs of blood cells', 'study/yolox_bccd', 'train', _bccd
    ),
    'cifar10': StudySet(
        '5,000 photographs of CIFAR-10', 'study/resnet18_cifar10', 'mmpretrain::train', _cifar10
    ),
}  # fmt: skip
"""By their names on the command line."""


def with_data(cfg: Config, data: dict[str, dict]) -> Config:
    """Return a config with the paths of a set.

    Args:
        cfg (Config): The config; changed in place.
        data (dict[str, dict]): What ``StudySet.prepare`` returned.
    """
    for split in SPLITS:
        cfg[f'{split}_dataloader'].dataset.update(data[split])
    return cfg
