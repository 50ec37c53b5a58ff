# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
r"""Time the layers of a model on this machine, so that it can be pruned for a latency here.

Makes a table of how long each convolution and linear layer takes in the widths that pruning may
leave, and times three whole networks, the dense one and two with fewer channels. It takes
some minutes. Ctrl-C keeps what was measured, and the same command goes on. Then write into the
config

  target=dict(latency=0.6, table='table.json')        # or latency='12ms'

Ratios to a reference convolution are stored, timed around each entry: other load of the machine
does no harm. Neither data nor weights are needed. For a device without mmdet see adasap layers;
adasap groups --table shows what a target would do.

examples:
  adasap latency configs/yolox/yolox_s_8xb8-300e_voc0712.py --out yolox.json
  adasap latency mmdet::yolox/yolox_s_8xb8-300e_coco.py --image-size 320 --out yolox-320.json
  adasap latency CONFIG --backend torch --device cuda --out gpu.json
"""

import argparse
import sys
from pathlib import Path

from ..fileio import quiet_on_closed_pipe
from .arguments import at_least_1, called_as, make_parser
from .dense_model import (
    add_config,
    add_size_of_table,
    build_model,
    choose_image,
    quiet_or_exit,
)
from .machine import treat_sigterm_as_interrupt


def parse_args() -> argparse.Namespace:
    parser = make_parser('latency.py', __doc__)
    add_config(parser)
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        metavar='FILE',
        help='the table; where it is there, what it lacks is added',
    )
    parser.add_argument('--force', action='store_true', help='begin anew if --out is there')
    parser.add_argument(
        '--backend',
        choices=('torch', 'onnxruntime', 'openvino'),
        default='onnxruntime',
        help='what the network will run with (default: onnxruntime); all but torch need onnx',
    )
    parser.add_argument(
        '--device', choices=('cpu', 'cuda'), default='cpu', help='where (default: cpu)'
    )
    parser.add_argument(
        '--threads', type=at_least_1, default=1, metavar='N', help='of the backend (default: 1)'
    )
    parser.add_argument(
        '--rounds',
        type=at_least_1,
        default=5,
        metavar='N',
        help='timings of each entry, of which the median counts (default: 5)',
    )
    add_size_of_table(parser)
    return parser.parse_args()


def say(line: str) -> None:
    """Print a line for the user, in place of the progress."""
    start = '\r\033[K' if sys.stderr.isatty() else ''
    print(f'{start}{called_as()}: {line}', file=sys.stderr, flush=True)


def measure(args: argparse.Namespace) -> tuple:
    """Return the table, and height and width of its images with where they are from."""
    from ..apis import measure_table
    from ..errors import MissingPackageError, message_for_user
    from ..latency import measure_latency

    config, model = build_model(args.config)
    size, source = choose_image(config, model, args.image_size)
    say(f'for {size[0]}x{size[1]} pixels ({source})')
    try:
        table = measure_table(
            model,
            size,
            args.out,
            backend=args.backend,
            device=args.device,
            threads=args.threads,
            rounds=args.rounds,
            config=args.config,
            force=args.force,
            progress=measure_latency.Progress(say),
            report=say,
        )
    except (measure_latency.RefusedError, MissingPackageError) as error:
        # It is about an option or a layer, and no config would help.
        sys.exit(f'{called_as()}: {message_for_user(error)}')
    return table, size


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    if not args.out.parent.is_dir():
        sys.exit(f'{called_as()}: --out {args.out}: there is no folder {args.out.parent}')
    treat_sigterm_as_interrupt()
    try:
        with quiet_or_exit(args.config):
            table, size = measure(args)
    except KeyboardInterrupt:
        kept = f'what was measured is in {args.out}; ' if args.out.exists() else ''
        say('interrupted')  # in place of the progress
        sys.exit(f'{called_as()}: {kept}the same command goes on from here')
    say('done')
    print(f'{table.describe()}, for {size[0]}x{size[1]} pixels')
    print(f'step of the device: {table.step} channels')
    for dense, half, *_ in table.networks.values():
        print(f'dense network: {dense / 1e6:.3g} ms; half of all channels: {half / 1e6:.3g} ms')
    print('in the config of AdaSAPHook, to prune to 0.6 of the time:')
    print(f"  target=dict(latency=0.6, table='{args.out}')")
    print(args.out)
