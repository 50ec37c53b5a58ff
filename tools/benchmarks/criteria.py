# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Compare criteria of removal: what is left of small models after the cut and after fine-tuning.

Three models (a YOLOX-tiny of half width, a RetinaNet and a ResNet-18, both of a quarter of their
width) are trained on the built-in sets from random weights, once for a short and once for a long
time. Each is then brought to 0.4 of its parameters by each criterion, with the same schedule,
steps and seed, in one pass a step: the sharpness step is left out, since it is not what differs.
'after' is the metric on the validation images right after the cut, 'end' after fine-tuning;
'params' and 'MACs' are what is left of the dense model.

Results are appended to OUT/results.jsonl as they come, and a second call goes on where the first
one stopped. --table prints what is there.

examples:
  python tools/benchmarks/criteria.py --models resnet --seeds 0      # some minutes on one core
  python tools/benchmarks/criteria.py                                # all, hours on one core
  python tools/benchmarks/criteria.py --table
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from criteria_models import MODELS, ROOT, make_data
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from seed_statistics import spread
from torch import Tensor
from tqdm import tqdm

import mmdet_adasap  # noqa: F401  registers the hook
from mmdet_adasap.pruning import ChannelGroup, Importance, per_channel
from mmdet_adasap.registry import IMPORTANCES

TARGET = 0.4
"""Share of the parameters that is left, as in the README's block."""


@IMPORTANCES.register_module()
class GroupMagnitudeImportance(Importance):
    """Group-normalised magnitude, as DepGraph (arXiv:2301.12900) defines it.

    The squared norms of everything that a channel's removal takes away, the weights that produce
    and that read it and the factors of its normalisation, are averaged over these parts and
    divided by their mean over the group.
    """

    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        """Score by the mean squared norm, see :meth:`Importance.scores`."""
        parts = []
        for member in group.members:
            name = member.name.rpartition('.')[2]
            if name == 'weight':  # biases and statistics have no part in it
                parts.append(per_channel(tensors[member.name].detach().float() ** 2, member))
        return self._normalized(torch.stack(parts).mean(0), kept)


def arm(kind: str, ratio: float = 1.0, target: dict | None = None, **kwargs) -> dict:
    """Return what an arm sets in AdaSAPHook."""
    target = target or dict(params=TARGET)
    return dict(importance=dict(type=kind, **kwargs), max_pruning_ratio=ratio, target=target)


README = "README's block"

ARMS = {
    'magnitude': arm('MagnitudeImportance'),
    'magnitude, not normalised': arm('MagnitudeImportance', normalize=False),
    'magnitude, at most 0.9': arm('MagnitudeImportance', 0.9),
    'magnitude, at most 0.7': arm('MagnitudeImportance', 0.7),
    'group magnitude': arm('GroupMagnitudeImportance'),
    'uniform, magnitude': arm('UniformWidth', within='MagnitudeImportance'),
    'uniform, Taylor': arm('UniformWidth', within='TaylorImportance'),
    'Taylor': arm('TaylorImportance'),
    'Taylor, at most 0.9': arm('TaylorImportance', 0.9),
    'Taylor, normalised': arm('TaylorImportance', normalize=True),
    'Taylor, MACs 0.4': arm('TaylorImportance', 0.9, dict(flops=TARGET)),
    'magnitude, MACs 0.4': arm('MagnitudeImportance', 0.9, dict(flops=TARGET)),
    'uniform, Taylor, MACs 0.4': arm('UniformWidth', 0.9, dict(flops=TARGET)),
    README: {},
}
"""Settings of AdaSAPHook by the arm's name. 'at most' is max_pruning_ratio, which is 1 where it is
not named; the arms that limit MACs run from the long training alone. The last one is the hook as
README has it: other steps, and two passes in each."""


WARMUP, PRUNE, INTERVAL, TOTAL = 10, 50, 5, 120
"""Iterations: ten events, and half of the run to fine-tune."""
README_EPOCHS = 24
"""Epochs of the config that README's block builds on."""


def hook_of(label: str) -> dict:
    """Return the config of AdaSAPHook of an arm."""
    if label == README:
        text = (ROOT / 'README.md').read_text()
        blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
        block = next(block for block in blocks if 'AdaSAPHook' in block)
        return Config.fromstring(block, '.py').default_hooks.adasap.to_dict()
    return dict(
        type='AdaSAPHook',
        by_epoch=False,
        warmup=WARMUP,
        prune=PRUNE,
        interval=INTERVAL,
        perturbation=None,
        finetune=None,
        **ARMS[label],
    )


class Scores(Hook):
    """Collects the metric of every validation."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.losses: list[float] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Keep the loss of every step."""
        self.losses.append(round(float(outputs['loss'].detach()), 4))

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the one figure that the model's metric gives."""
        values = [v for k, v in metrics.items() if k.endswith(('/mAP', '/top1'))]
        self.found.append(float(values[0]))


def train(
    cfg: Config,
    folder: Path,
    length: int,
    every: int,
    lr: float,
    seed: int,
    by_epoch: bool = False,
) -> Runner:
    """Train with a cosine from ``lr``.

    Args:
        cfg (Config): The model and its set.
        folder (Path): Where the run writes to.
        length (int): Iterations, or epochs.
        every (int): How many lie between two validations.
        lr (float): The learning rate.
        seed (int): Seed of the run.
        by_epoch (bool): Whether ``length`` and ``every`` count epochs. Defaults to False.

    Returns:
        Runner: The runner, with ``scores`` of its validations and ``losses`` of its steps.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(folder)
    if by_epoch:
        cfg.train_cfg = dict(by_epoch=True, max_epochs=length, val_interval=every)
    else:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=length, val_interval=every)
        cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.optim_wrapper.optimizer.lr = lr
    cosine = dict(type='CosineAnnealingLR', eta_min=lr / 100, begin=0, end=length, T_max=length)
    cosine |= dict(by_epoch=True, convert_to_iter_based=True) if by_epoch else dict(by_epoch=False)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
        cosine,
    ]
    if cfg.get('load_from'):
        del cfg.param_scheduler[0]
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=20, log_metric_by_epoch=False)
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=by_epoch, interval=length, save_optimizer=False
    )
    cfg.randomness = dict(seed=seed)
    cfg.experiment_name = f'criteria_{folder.parent.name}_{folder.name}_{time.time_ns()}'
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    scores = Scores()
    runner.register_hook(scores)
    runner.train()
    runner.scores, runner.losses = scores.found, scores.losses
    return runner


def run_model(name: str, args: argparse.Namespace, done: set, results: Path) -> None:
    """Train and prune one model with all seeds and arms that are not done yet."""
    make, lr, lengths = MODELS[name]
    cfg = make(args.data)
    jobs = [
        (seed, which, label)
        for seed in args.seeds
        for which in args.training
        for label in args.arms
        if (name, which, seed, label) not in done
        and not (which == 'short' and 'MACs' in label)
        and not (name == 'resnet' and label == README)  # its epochs are long
    ]
    for seed, which, label in tqdm(jobs, desc=name, disable=not sys.stderr.isatty()):
        iterations = lengths[('short', 'long').index(which)]
        folder = args.out / f'{name}_{which}_{seed}'
        dense_score = folder / 'dense.json'
        if not dense_score.exists():
            dense = train(cfg, folder / 'dense', iterations, max(iterations // 3, 1), lr, seed)
            dense_score.write_text(json.dumps(dense.scores))
        dense_metric = json.loads(dense_score.read_text())[-1]
        pruned = copy.deepcopy(cfg)
        pruned.load_from = str(folder / 'dense' / f'iter_{iterations}.pth')
        hook = pruned.default_hooks.adasap = hook_of(label)
        length, cut = TOTAL, WARMUP + PRUNE
        if label == README:
            pruned.optim_wrapper.type = 'AdaSAPOptimWrapper'
            length, cut = README_EPOCHS, hook['warmup'] + hook['prune']
        start = time.perf_counter()
        line = dict(model=name, training=which, seed=seed, arm=label, dense=dense_metric)
        try:
            runner = train(
                pruned, folder / 'arm', length, cut, lr / 2, seed, by_epoch=label == README
            )
        except Exception as error:
            line['error'] = str(error)
        else:
            structure = next(h for h in runner.hooks if type(h).__name__ == 'AdaSAPHook').structure
            line |= dict(
                after=runner.scores[0],
                end=runner.scores[-1],
                params=structure['reached']['params'],
                flops=structure['reached']['flops'],
                losses=runner.losses,
                seconds=time.perf_counter() - start,
            )
        with results.open('a') as file:
            file.write(json.dumps(line) + '\n')


def read(results: Path) -> list[dict]:
    """Return the lines of a results file, none if there is no file."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def table(lines: list[dict]) -> str:
    """Lay the results out in Markdown: a row for each arm, mean ± standard deviation."""
    text = []
    for model in MODELS:
        for which in ('short', 'long'):
            here = [x for x in lines if (x['model'], x['training']) == (model, which)]
            if not here:
                continue
            dense = {x['seed']: x['dense'] for x in here}
            text += [
                f'\n{model}, {which} training, dense {spread(list(dense.values()))}, '
                f'{len(dense)} seeds\n',
                '| criterion | after the cut | at the end | params | MACs |',
                '|---|---:|---:|---:|---:|',
            ]
            for label in ARMS:
                rows = [x for x in here if x['arm'] == label]
                good = [x for x in rows if 'end' in x]
                if rows and not good:
                    text.append(f'| {label} | {rows[0]["error"][:60]} | | | |')
                if good:
                    cells = [spread([x[key] for x in good]) for key in ('after', 'end')]
                    cells += [
                        f'{np.mean([x[key] for x in good]):.2f}' for key in ('params', 'flops')
                    ]
                    text.append(f'| {label} | {" | ".join(cells)} |')
    return '\n'.join(text)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument(
        '--training', nargs='+', choices=('short', 'long'), default=['short', 'long']
    )
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS))
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs' / 'criteria')
    parser.add_argument('--data', type=Path, default=ROOT / 'data' / 'criteria')
    parser.add_argument('--table', action='store_true', help='print the results that are there')
    return parser.parse_args()


def main() -> None:
    """Run what is asked for and print the table."""
    args = parse_args()
    args.out = args.out.resolve()
    results = args.out / 'results.jsonl'
    if not args.table:
        torch.set_num_threads(1)
        args.out.mkdir(parents=True, exist_ok=True)
        make_data(args.data)
        logging.disable(logging.INFO)
        for model in args.models:
            done = {(x['model'], x['training'], x['seed'], x['arm']) for x in read(results)}
            run_model(model, args, done, results)
    print(table(read(results)))


if __name__ == '__main__':
    main()
