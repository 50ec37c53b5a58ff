# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Compare ways of choosing channels at equal measured time: which ends with more mAP and mPC?

A network of 0.4 of the parameters or MACs may be fast or slow, so arms that reach the same
fraction of these say little to those who want a fast model. Here every arm prunes until its
network takes the same share of the dense one's time (--time). The fraction of its own resource
that takes this share is found by timing cut copies beside the dense network, at the first event
and again at the last one; see equal_time_control.py. What the final network took is in the table,
and how many runs are more than 3 % off.

The detector is the demo's YOLOX-tiny on the built-in VOC, the classifier the demo's ResNet-18 at
half of ResNet's width on the built-in classification set. Each is trained once for a seed, from
random weights. All arms then start from it, with the same steps, events and seed, in one pass a
step; they differ in what limits and ranks channels, and in nothing else. Clean is mAP (VOC, 11
points) or top-1 accuracy on test images, mPC the mean over 15 corruptions at severity 3. Nothing
is chosen on test images.

Results are appended to OUT/results.jsonl when all arms of a model and seed are trained and tested,
and a second call goes on where the first one stopped. --table prints what is there. Arms that this
version of mmdet_adasap cannot run are skipped with the reason, and refused if --arms names them.
Latency arms need --latency FOLDER with a table for each model, as yolox.json.

examples:
  python tools/benchmarks/equal_time.py --models resnet --seeds 0    # some minutes on one core
  python tools/benchmarks/equal_time.py --jobs 2                     # all, an hour or two
  python tools/benchmarks/equal_time.py --arms 'params, ranked' 'FLOPs, joint'
  python tools/benchmarks/equal_time.py --table
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from criteria import WARMUP, read, train
from criteria_models import DEMO, ROOT
from equal_time_control import BACKENDS, EqualTimeHook, default_backend
from equal_time_table import format_table
from mmengine.config import Config

from mmdet_adasap.errors import AdaSAPError, one_line

INTERVAL, EVENTS, FINETUNE = 10, 10, 100
"""Iterations between two events, number of events, iterations after the cut: as in criteria.py
half of a run fine-tunes, and it is twice as long, so that arms have time to recover."""
STEP = 16
"""Channels that a layer keeps are a multiple of it in all arms: the step of the time of
convolutions on processors with AVX-512, below which cuts save nothing. All arms that were tried
came within 2 % of the wanted time with it."""
SEVERITY = 3
"""The middle one of five, as in the demo."""


class Case(NamedTuple):
    """A model of the study, and how long it is trained.

    Attributes:
        config (str): Config of the dense model in configs/demo.
        data (str): Where its set lies in the folder of data.
        options (dict): Settings of the config to override.
        lr (float): Learning rate of the dense training; arms have half of it.
        length (int): Iterations of the dense training.
        images (int): Test images.
    """

    config: str
    data: str
    options: dict
    lr: float
    length: int
    images: int


MODELS = {
    'resnet': Case(
        'dense_resnet18_tiny-imagenet.py',
        'tiny_imagenet',
        # Of the demo's 16 channels in the first stage none can go in steps of 16.
        {
            'model.backbone.stem_channels': 32,
            'model.backbone.base_channels': 32,
            'model.head.in_channels': 256,
        },
        0.05,
        675,
        400,
    ),
    'yolox': Case('dense_yolox_tiny-voc.py', 'tiny_voc/VOCdevkit/', {}, 0.02, 780, 150),
}
"""Lengths and learning rates are those of the demo."""


def arm(importance: str = 'TaylorImportance', resource: str = 'flops', **kwargs) -> dict:
    """Return what an arm sets in AdaSAPHook; the fraction of its resource is searched for."""
    # 0.99 is within reach of every model, and what a cut below it would be warned of.
    return dict(importance=dict(type=importance), target={resource: 0.99}, **kwargs)


ARMS = {
    'params, ranked': arm(resource='params'),
    'FLOPs, ranked': arm(),
    'FLOPs, joint': arm(solver='joint'),
    'FLOPs, joint, log': arm(solver='joint', objective='log'),
    'latency, joint': arm(resource='latency', solver='joint'),
    'latency, joint, log': arm(resource='latency', solver='joint', objective='log'),
    'uniform width': arm('UniformWidth'),
}
"""Settings of AdaSAPHook by the arm's name. The first is the default that others are compared
with."""


def hook_of(label: str, model: str, args: argparse.Namespace) -> dict:
    """Return the config of the hook of an arm."""
    settings = dict(ARMS[label])
    if 'latency' in settings['target']:
        table = str(args.latency / f'{model}.json') if args.latency else 'table.json'
        settings['target'] = settings['target'] | dict(table=table)
    return dict(
        type='EqualTimeHook',
        share=args.time,
        backend=args.backend,
        by_epoch=False,
        warmup=WARMUP,
        prune=EVENTS * INTERVAL,
        interval=INTERVAL,
        round_to=STEP,
        perturbation=None,
        finetune=None,
        **settings,
    )


def why_not(label: str, model: str, args: argparse.Namespace) -> str | None:
    """Return why an arm cannot be run for a model; None if it can."""
    hook = hook_of(label, model, args)
    hook.pop('type')
    try:
        EqualTimeHook(**hook)
    except (AdaSAPError, ValueError, TypeError) as error:
        return f'not known to this version of mmdet_adasap: {one_line(error)}'
    table = Path(hook['target'].get('table', __file__))
    if not table.is_file():
        return f'--latency: {table} is no file; measure it with adasap latency'
    return None


def config_of(model: str, data: Path) -> Config:
    """Return the config of a dense model with its data."""
    case = MODELS[model]
    cfg = Config.fromfile(DEMO / case.config)
    cfg.merge_from_dict(case.options)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{data}/{case.data}'
    return cfg


def make_sets(data: Path) -> None:
    """Build the sets of the demo; those that are there stay."""
    sys.path.insert(0, str(ROOT / 'tools' / 'demo'))
    from builtin_sets.tiny_imagenet import build_tiny_imagenet
    from builtin_sets.tiny_voc import build_tiny_voc

    build_tiny_imagenet(data / 'tiny_imagenet', size=32)
    build_tiny_voc(data / 'tiny_voc')


def run_unit(model: str, seed: int, labels: list[str], args: argparse.Namespace) -> list[dict]:
    """Train, prune and test one model with one seed.

    Args:
        model (str): A key of :data:`MODELS`.
        seed (int): Seed of the trainings.
        labels (list[str]): Keys of :data:`ARMS`.
        args (argparse.Namespace): The command line.

    Returns:
        list[dict]: A line for each arm, and one for the dense model.
    """
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    case, folder = MODELS[model], args.out / f'{model}_{seed}'
    cfg = config_of(model, args.data)
    dense = folder / 'dense' / f'iter_{case.length}.pth'
    if not dense.exists():
        train(cfg, folder / 'dense', case.length, case.length, case.lr, seed)
    start = dict(model=model, seed=seed, wanted=args.time, backend=args.backend)
    lines = [start | dict(arm='dense', share=1.0, params=1.0, flops=1.0, checkpoint=str(dense))]
    for label in labels:
        lines.append(start | _run_arm(label, model, seed, cfg, dense, args))
    test(folder, cfg, case, [line for line in lines if 'error' not in line])
    return lines


def _run_arm(
    label: str, model: str, seed: int, cfg: Config, dense: Path, args: argparse.Namespace
) -> dict:
    """Prune a model as an arm does; what was pruned before is not pruned again."""
    name = label.replace(', ', '_').replace(' ', '_')
    folder = dense.parents[1] / f'{args.backend}_{args.time:g}' / name
    written, hook = folder / 'arm.json', hook_of(label, model, args)
    if written.exists():
        line = json.loads(written.read_text())
        if line['hook'] == hook:
            return line
    pruned = Config(cfg.to_dict())
    pruned.load_from = str(dense)
    pruned.default_hooks.adasap = hook
    length = WARMUP + EVENTS * INTERVAL + FINETUNE
    before = time.process_time()
    line = dict(arm=label, hook=hook)
    try:
        runner = train(pruned, folder, length, length, MODELS[model].lr / 2, seed)
    except Exception as error:  # the other arms have to go on; the table shows it
        return line | dict(error=one_line(error))
    found = next(h for h in runner.hooks if isinstance(h, EqualTimeHook))
    line |= dict(
        share=found.measured,
        searched=found.searched,
        fraction=found.fraction,
        params=found.structure['reached']['params'],
        flops=found.structure['reached']['flops'],
        seconds=time.process_time() - before,
        checkpoint=str(folder / f'iter_{length}.pth'),
    )
    written.write_text(json.dumps(line))
    say(f'{model} {seed} {label}: time {line["share"]:.3f}, {line["seconds"]:.0f} s')
    return line


def test(folder: Path, cfg: Config, case: Case, lines: list[dict]) -> None:
    """Test models clean and under corruptions, all on the same images; fill in their lines."""
    from mmdet_adasap.robustness.evaluate import evaluate_robustness
    from mmdet_adasap.robustness.models import ModelSource

    config = folder / 'config.py'
    cfg.dump(config)
    before = time.process_time()
    sources = [ModelSource(line['arm'], str(config), line['checkpoint']) for line in lines]
    found = evaluate_robustness(
        sources,
        # A folder holds the results of one set of models.
        folder / f'test_{time.time_ns()}',
        severities=(SEVERITY,),
        subset=case.images,
        resamples=0,
    )
    for line in lines:
        result = found['models'][line['arm']]
        line |= dict(clean=result['clean'], mPC=result['mPC'])
    say(f'{folder.name} tested, {time.process_time() - before:.0f} s')


def say(line: str) -> None:
    """Print a line with the time of day."""
    print(f'{time.strftime("%H:%M:%S")} {line}', file=sys.stderr, flush=True)


def run_all(args: argparse.Namespace, arms: dict[str, list[str]]) -> None:
    """Run what is not done yet, and append each result.

    Args:
        args (argparse.Namespace): The command line.
        arms (dict[str, list[str]]): For each model the arms to run.
    """
    results = args.out / 'results.jsonl'
    done = {
        (x['model'], x['seed'], x['arm'])
        for x in read(results)
        if 'clean' in x and (x['wanted'], x['backend']) == (args.time, args.backend)
    }
    # As many threads as a process may use are settled when it loads its libraries.
    os.environ |= dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')
    # A fresh process for each worker: a fork would take along what this one has loaded.
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        units = {}
        for seed in args.seeds:
            for model, labels in arms.items():
                left = [label for label in labels if (model, seed, label) not in done]
                if left:
                    units[pool.submit(run_unit, model, seed, left, args)] = (model, seed)
        for unit in as_completed(units):
            try:
                lines = unit.result()
            except Exception as error:  # other seeds go on, and a second call tries this one again
                say(f'{units[unit]} failed: {one_line(error)}')
                continue
            with results.open('a') as file:
                file.writelines(f'{json.dumps(line)}\n' for line in lines)


def runnable_arms(args: argparse.Namespace, parser: argparse.ArgumentParser) -> dict:
    """Return the arms to run by model; one that was named and cannot be run ends the program."""
    arms = {}
    for model in args.models:
        reasons = {label: why_not(label, model, args) for label in args.arms or ARMS}
        for label, reason in reasons.items():
            if reason and args.arms:
                parser.error(f'--arms {label!r}: {reason}')
            if reason:
                say(f'{model}: skipped {label!r}: {reason}')
        arms[model] = [label for label, reason in reasons.items() if not reason]
    return arms


def make_parser() -> argparse.ArgumentParser:
    """Make the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument('--arms', nargs='+', choices=ARMS, help='default: all that can be run')
    parser.add_argument(
        '--time', type=float, default=0.6, help="share of the dense network's (default: 0.6)"
    )
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        default=default_backend(),
        help='what networks are timed in, with one thread (default: %(default)s)',
    )
    parser.add_argument('--latency', type=Path, metavar='FOLDER', help='tables, as yolox.json')
    parser.add_argument('--jobs', type=int, default=1, help='processes of one thread (default: 1)')
    parser.add_argument('--out', type=Path, default=ROOT / 'work_dirs' / 'equal_time')
    parser.add_argument('--data', type=Path, default=ROOT / 'data' / 'equal_time')
    parser.add_argument('--table', action='store_true', help='print the results that are there')
    parser.add_argument(
        '--reference',
        choices=ARMS,
        default=next(iter(ARMS)),
        metavar='ARM',
        help='with --table: what differences are to (default: %(default)s)',
    )
    return parser


def main() -> None:
    """Run what is asked for and print the table."""
    parser = make_parser()
    args = parser.parse_args()
    if not 0 < args.time < 1:
        parser.error(f'--time {args.time}: must be a share above 0 and below 1, as 0.6')
    if args.jobs < 1:
        parser.error(f'--jobs {args.jobs}: must be 1 or more')
    args.out, args.data = args.out.resolve(), args.data.resolve()
    args.latency = args.latency and args.latency.resolve()
    if not args.table:
        arms = runnable_arms(args, parser)
        args.out.mkdir(parents=True, exist_ok=True)
        make_sets(args.data)
        run_all(args, arms)
    lines = read(args.out / 'results.jsonl')
    print(format_table(lines, list(MODELS), list(ARMS), args.reference))


if __name__ == '__main__':
    main()
