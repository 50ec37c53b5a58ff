# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A classifier's config on a handful of small images of noise, nine iterations long.

python classifier_case.py CONFIG FOLDER    trains it, tests the checkpoint, prints a line of JSON
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import Runner
from PIL import Image

SIZES = {224: 64, 256: 72, 248: 72}
"""Sides of images in pixels, in a config and here."""
COUNTS = dict(train=6, val=8)


@METRICS.register_module(force=True)
class LogitSum(BaseMetric):
    """A number that depends on every weight."""

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results += [s['pred_score'].double().square().sum().item() for s in data_samples]

    def compute_metrics(self, results: list) -> dict:
        return dict(logits=sum(results))


def make_images(folder: Path, side: int, classes: int) -> None:
    """Noise in JPEG files, with lists of them as ImageNet's ``meta`` has."""
    rng = np.random.default_rng(0)
    (folder / 'meta').mkdir(parents=True)
    for split, count in COUNTS.items():
        (folder / split).mkdir()
        lines = []
        for i in range(count):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f'{i}.png')
            lines.append(f'{i}.png {i % classes}\n')
        (folder / 'meta' / f'{split}.txt').write_text(''.join(lines))


def smaller(value: object) -> object:
    """The same settings for smaller images, and from random weights."""
    if isinstance(value, dict):
        return {
            k: SIZES.get(v, v) if k in ('scale', 'crop_size') else smaller(v)
            for k, v in value.items()
        }
    return type(value)(map(smaller, value)) if isinstance(value, list | tuple) else value


def small_run(path: Path, folder: Path) -> Config:
    """A config's own run, on images of noise in a folder: three iterations a phase."""
    cfg = Config.fromfile(path)
    kind = cfg.train_dataloader.dataset.type
    imagenet = kind == 'ImageNet'
    make_images(folder / 'data', 80 if imagenet else 32, 1000 if imagenet else 10)
    settings = cfg.to_dict()
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        found = settings[f'{loader}_dataloader']
        found |= dict(batch_size=2, num_workers=0, persistent_workers=False)
        pipeline = smaller(found['dataset']['pipeline'])
        found['dataset'] = dict(
            type='ImageNet' if imagenet else 'CustomDataset',
            data_root=str(folder / 'data'),
            ann_file=f'meta/{split}.txt',
            data_prefix=split,
            pipeline=[dict(type='LoadImageFromFile'), *pipeline]
            if kind == 'CIFAR10'
            else pipeline,
        )
    accuracy = settings['val_evaluator']
    settings['val_evaluator'] = settings['test_evaluator'] = [accuracy, dict(type='LogitSum')]
    settings['train_cfg'] |= dict(max_epochs=3, val_interval=3)
    # For batches of two; at the full rate the probabilities end at 0 and 1, whatever the weights.
    if 'auto_scale_lr' in settings:
        settings['auto_scale_lr']['enable'] = True
    else:
        settings['optim_wrapper']['optimizer']['lr'] *= 2 / cfg.train_dataloader.batch_size
    settings['load_from'] = None
    settings['default_hooks']['adasap'] |= dict(warmup=1, prune=1, interval=1, by_epoch=True)
    settings['default_hooks']['logger'] = dict(type='LoggerHook', interval=1)
    settings['randomness'] = dict(seed=0)
    settings['work_dir'] = str(folder)
    settings['custom_imports']['imports'].append('_utils.classifier_case')  # for LogitSum
    return Config(settings)


def measured(row: dict) -> dict:
    return {k: v for k, v in row.items() if k.startswith(('accuracy', 'logits'))}


def main(path: Path, folder: Path) -> dict:
    small_run(path, folder).dump(folder / 'config.py')
    Runner.from_cfg(Config.fromfile(folder / 'config.py')).train()
    (log,) = folder.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [row for row in rows if 'loss' in row]
    structure = torch.load(folder / 'epoch_3.pth', weights_only=False)['meta']['mmdet_adasap']

    cfg = Config.fromfile(folder / 'config.py')
    cfg.load_from, cfg.work_dir = str(folder / 'epoch_3.pth'), str(folder / 'test')
    cfg.experiment_name = 'test'
    tester = Runner.from_cfg(cfg)
    dense = sum(p.numel() for p in tester.model.parameters())
    tested = measured(tester.test())
    return {
        'losses': [row['loss'] for row in losses],
        'loss_ratios': [row['loss_ratio'] for row in losses],
        'validated': measured(rows[-1]),
        'tested': tested,
        'dense': dense,
        'slim': sum(p.numel() for p in tester.model.parameters()),
        'phase': structure['phase'],
        'reached': structure['reached']['params'],
    }


if __name__ == '__main__':
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
