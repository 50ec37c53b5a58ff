# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Test models clean and under the corruptions of the benchmark: P, mPC, rPC and mCE.

P is the mAP of detectors and the top-1 accuracy of classifiers. Dense and pruned checkpoints may
stand side by side; every corrupted image is made once for all of them. The config is the unpruned
one, and its own test_dataloader and test_evaluator are used. DIR gets results.json and a file for
each cell, which is there as soon as the cell is: a run that was stopped goes on with the same
command. Other settings in the same DIR are refused. At the end report.html, report.md and
report.csv show the models side by side; --compare writes them for the models of several runs.

A checkpoint is written as one of
  CKPT                  a file; its name in the results is FOLDER/FILE
  NAME=CKPT             with a name of its own
  NAME=CONFIG.py:CKPT   with another config than the first argument; same images and annotations

examples:
  python tools/robustness.py CONFIG dense=work_dirs/d/epoch_24.pth slim=work_dirs/s/epoch_24.pth \\
      --out work_dirs/robustness --workers 4
  python tools/robustness.py CONFIG CKPT --out DIR --subset 500 --severities 3
  python tools/robustness.py configs/resnet/resnet50_8xb128-coslr-90e_in1k.py CKPT --out DIR \\
      --imagenet-c data/imagenet-c --imagenet-v2 data/imagenet-v2
  python tools/robustness.py --compare work_dirs/a/results.json work_dirs/b/results.json --out DIR
  torchrun --nproc_per_node 4 tools/robustness.py CONFIG CKPT --out DIR --launcher pytorch
"""

import argparse
import contextlib
import os
import re
import sys
import warnings
from pathlib import Path

from ..errors import UnreadableImagesError, message_for_user
from ..fileio import quiet_on_closed_pipe
from ..robustness.benchmark import IMAGENET_V2_DEFAULT, IMAGENET_V2_FOLDERS, MODES, SEVERITIES
from .arguments import (
    at_least_0,
    at_least_1,
    at_least_2_or_0,
    called_as,
    cores,
    make_parser,
)
from .machine import choose_device, join_processes, treat_sigterm_as_interrupt
from .robustness_table import format_table

# NAME has no =, / or :, and CONFIG ends in .py, so that paths of checkpoints are not cut.
SOURCE = re.compile(r'(?:(?P<name>[^=/:]+)=)?(?:(?P<config>.+?\.py):)?(?P<checkpoint>.+)')


class ProgressBar:
    """A progress bar that estimates the remaining time from the mean of all images so far."""

    def __init__(self, shown: bool) -> None:
        self.shown = shown
        self.bar = None

    def start(self, total: int, done: int) -> None:
        from tqdm import tqdm

        # smoothing=0 is the mean of all. Corruptions cost from 1 to 20 ms an image, so the last
        # images alone say little about the rest.
        self.bar = tqdm(
            total=total,
            initial=done,
            unit='img',
            smoothing=0,
            disable=not self.shown,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 10,
        )

    def images(self, count: int) -> None:
        self.bar.update(count)

    def say(self, line: str) -> None:
        if self.shown:
            print(f'{called_as()}: {line}', file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    treat_sigterm_as_interrupt()
    bar = ProgressBar(True)
    try:
        # Models and datasets print while they are built; stdout is for the table alone.
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter('ignore')
            results, page, unreadable = test_or_compare(args, bar)
    except KeyboardInterrupt:
        # The same signal may have ended the workers, of which PyTorch would print a warning.
        sys.unraisablehook = lambda unraisable: None
        bar.close()
        if args.partial and (args.out / 'results.json').exists():
            from ..robustness import report

            bar.say(f'what there is: {report.write_report(args.out)}')
        sys.exit(f'{called_as()}: interrupted; the same command goes on from here')
    except Exception as error:  # a config is a program, and a model may fail in any way
        bar.close()
        sys.exit(f'{called_as()}: {message_for_user(error)}')
    bar.close()
    if results is not None:
        print(format_table(results))
        print(args.out / 'results.json')
    if page is not None:
        print(page)
    if unreadable is not None:
        sys.exit(f'{called_as()}: {message_for_user(unreadable)}')


def test_or_compare(
    args: argparse.Namespace, bar: ProgressBar
) -> tuple[dict | None, Path | None, Exception | None]:
    """Return results, the page of the report, and the error about unreadable images."""
    bar.shown = join_processes() if args.launcher == 'pytorch' else True
    from ..robustness import report

    if args.compare:
        return None, report.compare(args.compare, args.out), None
    device, line = choose_device(args.device, args.out)
    bar.say(line)
    results, unreadable = run(args, device, bar)
    return results, report.write_report(args.out) if results is not None else None, unreadable


def run(
    args: argparse.Namespace, device: str, bar: ProgressBar
) -> tuple[dict | None, Exception | None]:
    """Return the content of results.json, on rank 0, and the error about unreadable images."""
    from ..robustness.evaluate import evaluate_robustness
    from ..robustness.models import ModelSource
    from ..robustness.run import Progress

    shifted_sets = {}
    if args.imagenet_v2:
        variant = args.variant or IMAGENET_V2_DEFAULT
        dataset = dict(type='ImageNetV2', data_root=args.imagenet_v2, variant=variant)
        shifted_sets[f'imagenet-v2-{variant}'] = dataset
    published = None
    for kind, folder in (('ImageNetC', args.imagenet_c), ('CIFAR10C', args.cifar10_c)):
        if folder:
            published = dict(type=kind, data_root=folder)
    try:
        results = evaluate_robustness(
            [ModelSource(*parse_source(text, args.config)) for text in args.checkpoints],
            args.out,
            corruptions=args.corruptions,
            severities=args.severities or SEVERITIES,
            subset=args.subset,
            seed=args.seed,
            mode=args.mode,
            resamples=args.resamples,
            batch_size=args.batch_size,
            workers=args.workers,
            device=device,
            reference=args.reference,
            metric=args.metric,
            scale=args.scale,
            partial=args.partial,
            shifted_sets=shifted_sets,
            published=published,
            cfg_options=parse_cfg_options(args.cfg_options),
            progress=Progress(bar.start, bar.images, bar.say),
        )
    except UnreadableImagesError as error:
        return error.results, error
    return results, None


def parse_args() -> argparse.Namespace:
    parser = make_parser('robustness.py', __doc__)
    _add_models(parser)
    _add_benchmark(parser)
    _add_images(parser)
    _add_metric_and_machine(parser)
    args = parser.parse_args()
    if args.compare and args.config:
        parser.error(f'--compare tests nothing: leave out {args.config}')
    if args.variant and not args.imagenet_v2:
        parser.error('--variant is of ImageNet-V2: say with --imagenet-v2 where that is')
    if not args.compare and not args.checkpoints:
        parser.error('CONFIG and one CKPT or more are needed, or --compare')
    return args


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config', metavar='CONFIG', nargs='?', help='a file, or a name as mmdet::ssd/...py'
    )
    parser.add_argument('checkpoints', metavar='CKPT', nargs='*', help='see above')
    parser.add_argument(
        '--compare',
        nargs='+',
        metavar='RESULTS',
        help='results.json of two or more runs of one protocol, instead of CONFIG and CKPT',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='the folder')


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--corruptions',
        nargs='+',
        metavar='NAME',
        help="default: the benchmark's; mPC is then over those of them that are named",
    )
    parser.add_argument(
        '--severities', nargs='+', type=severity, metavar='N', help='1 to 5 (default: all)'
    )
    parser.add_argument(
        '--subset', type=at_least_1, metavar='N', help='test N images, always the same ones'
    )
    parser.add_argument(
        '--seed', type=at_least_0, default=0, help='of corruptions and resampling (default: 0)'
    )
    parser.add_argument(
        '--mode',
        choices=MODES,
        default='fast',
        help='exact: corrupt with the random draws of the published code (default: fast)',
    )
    parser.add_argument(
        '--resamples',
        type=at_least_2_or_0,
        default=1000,
        metavar='N',
        help='of the images, for confidence intervals; 0 for none (default: 1000)',
    )
    parser.add_argument(
        '--reference',
        metavar='NAME',
        help="mCE and differences refer to it (default: the first; mCE on ImageNet: AlexNet's "
        'published errors)',
    )
    parser.add_argument(
        '--partial',
        action='store_true',
        help='give mPC in results.json while cells are missing, too, and mark it partial; an '
        'interrupted run then writes its report as well',
    )


def _add_images(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        '--imagenet-c',
        metavar='DIR',
        help='read corrupted images from ImageNet-C, which is unpacked there, and compute none',
    )
    source.add_argument('--cifar10-c', metavar='DIR', help='the same from CIFAR-10-C')
    parser.add_argument(
        '--imagenet-v2',
        metavar='DIR',
        help='test classifiers of ImageNet on ImageNet-V2 as well, which is unpacked there: R_V2',
    )
    parser.add_argument(
        '--variant',
        choices=IMAGENET_V2_FOLDERS,
        help=f'of ImageNet-V2 (default: {IMAGENET_V2_DEFAULT})',
    )


def _add_metric_and_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--metric', metavar='KEY', help='figure of test_evaluator to use, as coco/bbox_mAP_50'
    )
    parser.add_argument(
        '--scale',
        type=float,
        metavar='X',
        help='what makes a fraction of that figure, as 0.01 of percents',
    )
    parser.add_argument(
        '--batch-size', type=at_least_1, metavar='N', help="default: the configs' smallest"
    )
    parser.add_argument(
        '--workers',
        type=at_least_0,
        default=min(4, cores()),
        metavar='N',
        help='processes that load and corrupt (default: one for each core, 4 at most)',
    )
    parser.add_argument(
        '--device',
        help='cpu, cuda or cuda:N (default: a GPU, if there is one; the first line says which)',
    )
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch'),
        default='none',
        help='pytorch: started by torchrun; the processes share the images',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override settings of all configs, as in test.py',
    )


def severity(text: str) -> int:
    if text not in map(str, SEVERITIES):
        raise argparse.ArgumentTypeError(f'{text!r} must be from 1 (light) to 5 (heavy)')
    return int(text)


def parse_source(text: str, config: str) -> tuple[str, str, str]:
    """Return name, config and checkpoint of a model as the command line gives it.

    Args:
        text (str): CKPT, NAME=CKPT or NAME=CONFIG.py:CKPT.
        config (str): The config for models without one.
    """
    # The name of a file may contain = and : itself.
    match = None if Path(text).is_file() else SOURCE.fullmatch(text)
    checkpoint = match['checkpoint'] if match else text
    path = Path(checkpoint)
    name = (match and match['name']) or f'{path.resolve().parent.name}/{path.stem}'
    return name, (match and match['config']) or config, checkpoint


def parse_cfg_options(texts: list[str] | None) -> dict:
    """Parse the values of --cfg-options as mmengine's tools do."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(prog=called_as())
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return vars(parser.parse_args(['--cfg-options', *texts] if texts else []))['cfg_options'] or {}
