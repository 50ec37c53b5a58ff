# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Train a small model with every optimizer of a library, and print how each gets on with a cut.

Each optimizer is run without AdaSAPHook, with it, and with it but resumed before the cut and
after it. What comes out is one of:

  trains     through the cut, and both resumed runs end at the same weights to the bit
  drifts     as above, but a resumed run ends elsewhere; without the hook it does so, too
  refused    before the first step, by an error that names the optimizer; the reason follows
  no use     mmengine cannot train with it, with the hook or without
  FAILS      anything else: to be mended

The modules need to be installed. mmengine builds an optimizer with its parameters and lr alone.

examples:
  python tools/benchmarks/optimizers.py                             those of torch.optim
  python tools/benchmarks/optimizers.py pytorch_optimizer torch.optim
  python tools/benchmarks/optimizers.py pytorch_optimizer --only MADGRAD SOAP
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import logging
import os
import shutil
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import mmdet_adasap  # noqa: F401

ITERATIONS, CUT = 36, 16
RESUMED_AT = (10, 22)  # while channels are masked, and when they are cut off
LEARNING_RATE = 1e-3


class SmallModel(BaseModel):
    """Convolutions, normalisation, linear layers, and a parameter that is a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3)
        self.fc, self.head = nn.Linear(12, 16), nn.Linear(16, 4)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor'):
        """Return logits, or the loss."""
        x = F.relu(self.conv2(F.relu(self.bn(self.conv1(inputs))))).mean((2, 3))
        logits = self.head(F.relu(self.fc(x))) * self.scale
        return {'loss': F.cross_entropy(logits, labels)} if mode == 'loss' else logits


class MatrixModel(BaseModel):
    """Matrices alone, for optimizers that take nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(192, 16, bias=False), nn.Linear(16, 24, bias=False)
        self.head = nn.Linear(24, 4, bias=False)

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor'):
        """Return logits, or the loss."""
        logits = self.head(F.relu(self.fc2(F.relu(self.fc1(inputs.flatten(1))))))
        return {'loss': F.cross_entropy(logits, labels)} if mode == 'loss' else logits


def samples() -> list[dict]:
    """Return 16 images of noise, tinted by their class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 4
    tint = torch.eye(4)[:, :3][labels].reshape(16, 3, 1, 1)
    images = torch.randn(16, 3, 8, 8, generator=generator) * 0.5 + tint
    return [dict(inputs=i, labels=n) for i, n in zip(images, labels, strict=True)]


def train(
    kind: type[Optimizer],
    model: type[BaseModel],
    folder: Path,
    hook: bool,
    resume_at: int | None = None,
) -> dict:
    """Train, and return the weights that it ends with.

    Args:
        kind (type[Optimizer]): The optimizer.
        model (type[BaseModel]): The model.
        folder (Path): Where checkpoints of all iterations that count are, and go to.
        hook (bool): Whether AdaSAPHook prunes.
        resume_at (int, optional): Iteration of the checkpoint to go on from.
    """
    train.count = getattr(train, 'count', 0) + 1
    hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
    if hook:
        hooks['adasap'] = dict(
            type='AdaSAPHook',
            warmup=4,
            prune=CUT - 4,
            target=dict(params=0.5),
            interval=3,
            round_to=1,
            by_epoch=False,
        )
    resumed = resume_at is not None
    torch.manual_seed(0)
    runner = Runner(
        model=model(),
        work_dir=str(folder / f'from_{resume_at}'),
        experiment_name=f'optimizers_{train.count}',
        train_dataloader=dict(
            batch_size=8,
            dataset=samples(),
            num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=ITERATIONS),
        optim_wrapper=dict(
            type='AdaSAPOptimWrapper',
            optimizer=dict(type=kind, lr=LEARNING_RATE),
        ),
        default_hooks=hooks,
        load_from=str(folder / 'from_None' / f'iter_{resume_at}.pth') if resumed else None,
        resume=resumed,
        randomness=dict(seed=0),
        default_scope='mmengine',
        log_level='CRITICAL',
    )
    runner.train()
    return {name: tensor.clone() for name, tensor in runner.model.state_dict().items()}


def try_optimizer(kind: type[Optimizer], folder: Path) -> tuple[str, str]:
    """Return how an optimizer gets on, and what there is to say about it."""
    model = SmallModel
    try:
        kind(SmallModel().parameters(), lr=LEARNING_RATE)
    except Exception:
        model = MatrixModel
    plain, reason = {}, 'weights become infinite'
    try:
        plain = train(kind, model, folder / 'plain', hook=False)
        useless = not all(tensor.isfinite().all() for tensor in plain.values())
    except Exception as error:
        useless, reason = True, f'{type(error).__name__}: {error}'
    try:
        whole = train(kind, model, folder / 'hook', hook=True)
    except Exception as error:
        before_step_1 = not list((folder / 'hook').rglob('iter_*.pth'))
        named = str(error).startswith(f'optim_wrapper.optimizer: {kind.__name__} ')
        if before_step_1 and named:
            return ('no use' if useless else 'refused'), str(error)
        return ('no use' if useless else 'FAILS'), f'{type(error).__name__}: {error}'
    if useless:
        return 'no use', f'{reason}, and trains with AdaSAPHook'
    try:
        ends = [train(kind, model, folder / 'hook', True, at) for at in RESUMED_AT]
    except Exception as error:
        return 'FAILS', f'resumed: {type(error).__name__}: {error}'
    if all(_equal(whole, end) for end in ends):
        return 'trains', ''
    if plain and _equal(plain, train(kind, model, folder / 'plain', False, RESUMED_AT[0])):
        return 'FAILS', 'a resumed run ends at other weights'
    return 'drifts', 'resumed runs differ without AdaSAPHook, too'


def _equal(left: dict, right: dict) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def optimizers_of(module: str) -> dict[str, type[Optimizer]]:
    """Return the optimizers that a module exports, by name."""
    found = vars(importlib.import_module(module))
    return {
        name: value
        for name, value in sorted(found.items())
        if inspect.isclass(value) and issubclass(value, Optimizer) and value is not Optimizer
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('modules', nargs='*', default=['torch.optim'], help='where they are')
    parser.add_argument('--only', nargs='+', help='names of optimizers')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    counts = Counter()
    for module in args.modules:
        for name, kind in optimizers_of(module).items():
            if args.only and name not in args.only:
                continue
            folder = Path(tempfile.mkdtemp())
            with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
                verdict, remark = try_optimizer(kind, folder)
            shutil.rmtree(folder)
            counts[verdict] += 1
            print(f'{name:24} {verdict:8} {" ".join(remark.split())[:200]}', flush=True)
    print(', '.join(f'{verdict}: {count}' for verdict, count in counts.most_common()))


if __name__ == '__main__':
    main()
