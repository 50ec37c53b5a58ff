# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Whether `loss_ratio` holds L(w+ε)/L(w) at what is wanted, from radii that are far off, too.

The demo's YOLOX, a small RetinaNet and a small ResNet-18 are trained plainly for a while, and then
with `perturbation=dict(type='AdaptivePerturbation', loss_ratio=R)`, whose radii are a thirtieth of
the default, the default, and 30 times it. The table has the mean ratio of 50 iterations each, and
what the radii were multiplied by at the end. Nothing is downloaded.

examples:
  python tools/benchmarks/loss_ratio.py --models resnet            # a minute
  python tools/benchmarks/loss_ratio.py                            # half an hour on one core
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import torch
from criteria_models import DEMO, make_data, resnet, retinanet
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_adasap  # noqa: F401
from mmdet_adasap.sharpness import AdaptivePerturbation

FACTORS = (1 / 30, 1, 30)
WINDOW = 50


def demo(data: Path) -> Config:
    """Return the config of the demo's detector, on the images of criteria.py."""
    cfg = Config.fromfile(DEMO / 'dense_yolox_tiny-voc.py')
    for split in ('train', 'val', 'test'):
        root = str(data / 'tiny_voc' / 'VOCdevkit') + '/'
        cfg[f'{split}_dataloader'].dataset.data_root = root
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=('digit',))
    cfg.model.bbox_head.num_classes = 1
    return cfg


MODELS = {'demo': (demo, 120), 'retinanet': (retinanet, 160), 'resnet': (resnet, 400)}
"""By name: the config, and iterations of the plain training."""


class Ratios(Hook):
    """Keeps the ratio of each iteration."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def after_train_iter(self, runner, *_, **__) -> None:
        """Read the ratio of the step."""
        self.found.append(float(runner.optim_wrapper.last_stats['loss_ratio']))


def train(cfg: Config, iterations: int, seed: int, hook: Hook | None = None) -> Runner:
    """Return the runner of a training whose rate stays; nothing is kept on the disk."""
    cfg = Config(cfg.to_dict())
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=10**9)
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint = None
    cfg.param_scheduler = []
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = Runner.from_cfg(cfg)
        if hook is not None:
            runner.register_hook(hook)
        runner.train()
    return runner


def ratios_of(
    cfg: Config, dense: dict, factor: float, args: argparse.Namespace
) -> tuple[list[float], float]:
    """Return the ratios of a training from dense weights, and the scale that it ends with."""
    plain, ratios = AdaptivePerturbation(), Ratios()
    cfg = Config(cfg.to_dict())
    cfg.optim_wrapper.type = 'AdaSAPOptimWrapper'
    cfg.optim_wrapper.perturbation = dict(
        type='AdaptivePerturbation',
        rho_min=plain.rho_min * factor,
        rho_max=plain.rho_max * factor,
        loss_ratio=args.loss_ratio,
    )
    # The runner initialises the model when it starts to train.
    ratios.before_train = lambda runner: runner.model.load_state_dict(dense)
    runner = train(cfg, args.iterations, args.seed, ratios)
    return ratios.found, float(runner.optim_wrapper.perturbation.controller.scale)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--loss-ratio', type=float, default=1.3, help='wanted (default: 1.3)')
    parser.add_argument('--iterations', type=int, default=200, help='of each (default: 200)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data', type=Path, default=Path('data'), help='where sets are built')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    make_data(args.data)
    starts = range(0, args.iterations, WINDOW)
    windows = ' | '.join(f'{start + 1} to {start + WINDOW}' for start in starts)
    print(f'| model | radii times | {windows} | scale |')
    print('|---|---:|' + '---:|' * (len(starts) + 1))
    for name in args.models:
        make, length = MODELS[name]
        cfg = make(args.data)
        dense = train(cfg, length, args.seed).model.state_dict()
        for factor in FACTORS:
            found, scale = ratios_of(cfg, dense, factor, args)
            windows = [found[start : start + WINDOW] for start in starts]
            means = ' | '.join(f'{sum(each) / len(each):.3f}' for each in windows)
            print(f'| {name} | {factor:.3g} | {means} | {scale:.3g} |', flush=True)


if __name__ == '__main__':
    main()
