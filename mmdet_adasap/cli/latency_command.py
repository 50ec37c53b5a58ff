# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
r"""Time the layers of a model on this machine, so that it can be pruned for a latency here.

Makes a table of how long each convolution and linear layer takes in the widths that pruning may
leave, and times two whole networks, the dense one and one with half of all channels. It takes a
minute or some, and goes on where it was stopped. Then write into the config

  target=dict(latency=0.6, table='table.json')        # or latency='12ms'

Ratios to a reference convolution are stored, timed around each entry: other load of the machine
does no harm. For a device without mmdet see adasap layers.

examples:
  adasap latency configs/yolox/adasap_yolox_s_8xb8-300e_voc0712.py --out yolox.json
  adasap latency mmdet::yolox/yolox_s_8xb8-300e_coco.py --backend onnxruntime --out yolox.json
"""

import argparse
import sys
from pathlib import Path

from ..fileio import quiet_on_closed_pipe
from .arguments import at_least_1, called_as, make_parser
from .dense_model import build_model, choose_image, quiet_or_exit


def parse_args() -> argparse.Namespace:
    parser = make_parser('latency.py', __doc__)
    parser.add_argument(
        'config', help='a file, or a name in a package, as mmdet::ssd/ssd300_coco.py'
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='the table')
    parser.add_argument(
        '--backend',
        choices=('torch', 'onnxruntime', 'openvino'),
        default='onnxruntime',
        help='what the network will run with (default: onnxruntime)',
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
    parser.add_argument(
        '--image-size',
        type=at_least_1,
        metavar='PIXELS',
        help='side of a square image, which is that of the table and of all that is pruned by it '
        '(default: what the test pipeline makes)',
    )
    return parser.parse_args()


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    program = called_as()
    if not args.out.parent.is_dir():
        sys.exit(f'{program}: --out {args.out}: there is no folder {args.out.parent}')
    with quiet_or_exit(args.config):
        from ..apis import measure_table
        from ..latency import measure_latency

        config, model = build_model(args.config)
        size, source = choose_image(config, model, args.image_size)
        table = measure_table(
            model,
            size,
            args.out,
            backend=args.backend,
            device=args.device,
            threads=args.threads,
            rounds=args.rounds,
            config=args.config,
            progress=measure_latency.Progress(),
        )
    print(f'{table.describe()}, for {size[0]}x{size[1]} pixels ({source})')
    print(f'step of the device: {table.step} channels')
    for dense, half in table.networks.values():
        print(f'dense network: {dense / 1e6:.3g} ms; half of all channels: {half / 1e6:.3g} ms')
    print(args.out)
