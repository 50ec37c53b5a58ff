# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write a pruned model so that mmdet or mmpretrain takes it where this plugin is not installed.

The folder gets config.py and model.pth, which their own tools take, what config.py imports,
structure.json, and report.json with sizes and times on this machine. With --onnx there is
model.onnx, too: the network up to the raw outputs of its heads; of a two-stage detector up to
the RPN, with the second stage in roi_head.onnx. Its batch is free; height and width are those that
the test pipeline makes, or free as well with --dynamic-size.

A dense checkpoint is exported as it is, to compare its files with those of a slim one.

examples:
  python tools/export.py configs/ssd300/adasap_ssd300_voc0712.py epoch_24.pth --out slim_ssd300
  python tools/export.py CONFIG CHECKPOINT --out FOLDER --onnx
  python tools/export.py CONFIG CHECKPOINT --out FOLDER --onnx --dynamic-size
  python "$(python -m mmdet_adasap.env --tool test)" slim_ssd300/config.py slim_ssd300/model.pth
"""

import argparse
import contextlib
import os
import sys
import warnings
from pathlib import Path

from ..errors import ExportMismatchError, OnnxMismatchError, one_line
from ..fileio import quiet_on_closed_pipe
from .arguments import called_as, make_parser


def parse_args() -> argparse.Namespace:
    parser = make_parser('export.py', __doc__)
    parser.add_argument('config', help='the config that the model was pruned with')
    parser.add_argument('checkpoint', help='the pruned checkpoint, or a dense one')
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='DIR',
        help='the folder; an earlier export there is replaced, and its ONNX files are removed',
    )
    parser.add_argument('--onnx', action='store_true', help='write ONNX files and compare them')
    parser.add_argument(
        '--dynamic-size',
        action='store_true',
        help='with --onnx: leave height and width of model.onnx free, and compare it at a second '
        'size, too; refused where the model takes one size alone',
    )
    parser.add_argument(
        '--force',
        action='store_true',
        help='write into a folder that holds other files; they stay',
    )
    parser.add_argument(
        '--rounds', type=int, default=10, metavar='N', help='timed runs of each (default: 10)'
    )
    return parser.parse_args()


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    program = called_as()
    # mmengine and mmdet print while they build; stdout is for the table, stderr for progress.
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter('ignore')
        from ..apis import export_pruned
        from ..export import format_table

        try:
            report = export_pruned(
                args.config,
                args.checkpoint,
                args.out,
                onnx=args.onnx,
                dynamic_size=args.dynamic_size,
                force=args.force,
                rounds=args.rounds,
                progress=lambda line: print(f'{program}: {line}', file=sys.stderr, flush=True),
            )
        except (
            OSError,
            ValueError,
            ImportError,
            SyntaxError,
            ExportMismatchError,
            OnnxMismatchError,
        ) as error:
            # mmengine's messages have several lines.
            sys.exit(f'{program}: {" ".join(str(error).split())}')
        except Exception as error:  # a wrong config may raise anything while it is built
            sys.exit(f'{program}: {args.config} or {args.checkpoint}: {one_line(error)}')
    for change in report['changes']:
        print(f'config: {change}')
    print(format_table(report))
    print(args.out)
