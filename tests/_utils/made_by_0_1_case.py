# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the files in data/made_by_0_1 were made with, by version 0.1.0.

python made_by_0_1_case.py GROUP...    loads exported folders and prints outputs, a line of JSON;
a group has commas between folders, and first of all 'without', or 'before' or 'behind': the plugin
is imported then
"""

import importlib
import json
import multiprocessing
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from _utils.toy import settings

WIDTH = 3
"""Of the toy model."""
CELLS = dict(corruptions=['fog', 'motion_blur'], severities=[2], resamples=20)
RUNS = {
    'classifiers': ('classifier.py', ('dense', 'slim'), dict(CELLS, subset=7)),
    'detectors': ('seeing.py', ('sharp', 'dull'), dict(CELLS, subset=5)),
}
"""Folders of results: the config, the models, and what was tested."""
CLASSES = ('across', 'down', 'slanted', 'dots')
TESTED = {'classifier': 'slim.pth', 'seeing': 'dull.pth'}
"""Configs and checkpoints that test.py was given."""


def run_of(work_dir: Path, **hook) -> dict:
    """Six epochs of six iterations: two warm up, two prune, two fine-tune."""
    hook = dict(warmup=2, prune=2, interval=4, importance=dict(type='TaylorImportance')) | hook
    ema = dict(type='EMAHook', momentum=0.1, update_buffers=True)
    return settings(work_dir, hook, custom_hooks=[ema])


def tensors_of(value: object, name: str = '') -> dict[str, torch.Tensor]:
    """Weights, moving averages and momentum of a checkpoint."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else ()
    return {k: t for key, v in items for k, t in tensors_of(v, f'{name}/{key}').items()}


def summary_of(tensors: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Of each tensor its size, two sums over all that is in it, and its first values."""
    found = {}
    for name, tensor in tensors.items():
        values = tensor.double().flatten()
        waved = (values * torch.arange(len(values)).double().cos()).sum()
        found[name] = [len(values), values.sum().item(), waved.item(), *values[:3].tolist()]
    return found


def write_images(folder: Path) -> None:
    """Stripes and noise, in folders by class: made of whole numbers, the same everywhere."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    waves = (y // 4 % 2, x // 4 % 2, (x + y) // 4 % 2, (x // 4 + y // 4) % 2)
    for split, count in (('train', 24), ('test', 3)):
        for name, wave in zip(CLASSES, waves, strict=True):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 200, (12, 12, 3)).repeat(4, 0).repeat(4, 1)
                image = noise + wave[..., None] * rng.integers(5, 56)
                cv2.imwrite(str(folder / split / name / f'{number}.png'), image.astype(np.uint8))


@torch.no_grad()
def raw_of(model: torch.nn.Module) -> list[torch.Tensor]:
    """What a network gives for one image, before a class or boxes are made of it."""
    found = model(torch.linspace(-1, 1, 3 * 32 * 32).sin().reshape(1, 3, 32, 32), mode='tensor')
    return [found] if isinstance(found, torch.Tensor) else [t for level in found for t in level]


def scores_of(config: str, checkpoint: str) -> dict[str, float]:
    """What test.py says of a checkpoint with its unpruned config."""
    cfg = Config.fromfile(config)
    cfg.update(load_from=checkpoint, work_dir='work_dirs/tested', experiment_name=config)
    return {key: float(value) for key, value in Runner.from_cfg(cfg).test().items()}


def outputs_of(group: str) -> list[list[list[float]]]:
    """Of exported folders, all of which are loaded before one is run."""
    plugin, *folders = group.split(',')
    if plugin == 'before':
        importlib.import_module('mmdet_adasap')
    else:
        sys.modules['mmdet_adasap'] = None  # an import of it would raise
    from mmdet.apis import init_detector
    from mmpretrain import get_model

    models = []
    for folder in folders:
        config, weights = f'{folder}/config.py', f'{folder}/model.pth'
        if 'detector' in folder:
            models.append(init_detector(config, weights, device='cpu'))
        else:
            models.append(get_model(config, pretrained=weights).eval())
    if plugin == 'behind':
        del sys.modules['mmdet_adasap']
        importlib.import_module('mmdet_adasap')
    return [[raw.flatten().tolist() for raw in raw_of(model)] for model in models]


if __name__ == '__main__':
    import mmdet.apis  # noqa: F401
    import mmpretrain  # noqa: F401

    torch.set_num_threads(1)
    # Each group in a process of its own, since one imports a module but once.
    with multiprocessing.get_context('fork').Pool(1, maxtasksperchild=1) as pool:
        print(json.dumps(pool.map(outputs_of, sys.argv[1:], chunksize=1)))
