# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write corrupted copies of a VOC set to disk, for people who need files.

mmdet needs none: CorruptedVOCDataset computes the same pixels as fast as files are read. The
folder is a data_root with one img_subdir for each condition, and corrupted_voc.json in it has
settings, versions and the sha256 of every image. An interrupted call goes on where it stopped.

examples:
  python tools/corrupt_voc.py --data-root data/VOCdevkit --out data/VOC-C       # 75 conditions
  python tools/corrupt_voc.py --data-root data/VOCdevkit --out data/VOC-fog \\
      --corruptions fog --severities 1 3 5 --quality 95 --workers 8
"""

import argparse
import sys

from ..fileio import quiet_on_closed_pipe
from ..robustness.corruptions import BENCHMARK, MODES, SEVERITIES
from .arguments import called_as, cores, make_parser


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    program = called_as()
    # Not at the top: it imports torch, for which --help would wait.
    from ..robustness.datasets import CopySettings, write_corrupted_voc

    try:
        settings = CopySettings(
            tuple(args.corruptions),
            tuple(args.severities),
            args.seed,
            args.year,
            args.split,
            args.quality,
            args.mode,
        )
        failed = write_corrupted_voc(args.data_root, args.out, settings, args.workers)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        sys.exit(f'{program}: {error}')
    except KeyboardInterrupt:
        sys.exit(f'{program}: interrupted; the same call goes on where it stopped')
    if failed:
        for reason in failed.values():
            print(f'{program}: {reason}', file=sys.stderr)
        sys.exit(
            f'{program}: {len(failed)} of the images could not be corrupted (named above); the '
            f'others are in {args.out}: mend them and call again'
        )
    print(f'{args.out}: {len(settings.conditions)} conditions of {args.year} {args.split}')


def parse_args() -> argparse.Namespace:
    parser = make_parser('corrupt_voc.py', __doc__)
    parser.add_argument('--data-root', required=True, help='the VOCdevkit; it is left as it is')
    parser.add_argument('--out', required=True, help='folder for the copies')
    parser.add_argument('--year', default='VOC2007', help='folder in it (default: %(default)s)')
    parser.add_argument('--split', default='test', help='list of images (default: %(default)s)')
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=BENCHMARK,
        metavar='NAME',
        help='default: the 15 of the benchmark',
    )
    parser.add_argument(
        '--severities',
        nargs='+',
        type=int,
        default=SEVERITIES,
        metavar='N',
        help='1 (light) to 5 (heavy; default: all)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the benchmark (default: 0)')
    parser.add_argument(
        '--mode',
        choices=MODES,
        default='fast',
        help='exact: with the random draws of the published code (default: fast)',
    )
    parser.add_argument(
        '--quality',
        type=int,
        help='write JPEG of this quality, 1 to 100, which changes pixels (default: PNG)',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=cores(),
        help='processes (default: one for each core, here %(default)s)',
    )
    return parser.parse_args()
