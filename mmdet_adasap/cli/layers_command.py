# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
r"""List what a device has to time of a model, so that it can be pruned for a latency there.

Writes a folder's worth of files that need neither mmdet nor this package on the device: the layers
in the widths that pruning may leave, the network as it is and two with fewer channels (ONNX, needs
onnx here), and the program that times them. No data and no weights are needed. Copy them to
the device, time there, and give the table to AdaSAPHook:

  target=dict(latency=0.6, table='table.json')

Where the network runs on this machine, adasap latency does both at once.

examples:
  adasap layers configs/ssd512/adasap_ssd512_r50_8xb16-800e_voc0712.py --out ssd/layers.json
  adasap layers mmdet::yolox/yolox_s_8xb8-300e_coco.py --image-size 640 --out yolox/layers.json
  python measure_latency.py layers.json --backend onnxruntime --out table.json   # on the device
"""

import argparse
import sys
from pathlib import Path

from ..fileio import quiet_on_closed_pipe
from .arguments import called_as, make_parser
from .dense_model import (
    add_config,
    add_size_of_table,
    build_model,
    choose_image,
    quiet_or_exit,
)


def parse_args() -> argparse.Namespace:
    parser = make_parser('layers.py', __doc__)
    add_config(parser)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='FILE', help='layers.json; others come beside'
    )
    add_size_of_table(parser)
    parser.add_argument(
        '--no-networks',
        action='store_true',
        help='leave the three ONNX files out: what runs between the layers is then not measured, '
        'and taken to shrink as the layers do',
    )
    return parser.parse_args()


@quiet_on_closed_pipe
def main() -> None:
    args = parse_args()
    program = called_as()
    if not args.out.parent.is_dir():
        folder = args.out.parent
        sys.exit(f'{program}: --out {args.out}: there is no folder {folder}; make it first')
    if args.out.is_dir():
        sys.exit(f'{program}: --out {args.out}: is a folder; write {args.out / "layers.json"}')
    try:
        with quiet_or_exit(args.config):
            from ..apis import list_layers

            config, model = build_model(args.config)
            size, source = choose_image(config, model, args.image_size)
            files = list_layers(
                model,
                size,
                args.out,
                config=args.config,
                networks=not args.no_networks,
                report=lambda line: print(f'{program}: {line}', file=sys.stderr, flush=True),
            )
    except KeyboardInterrupt:
        sys.exit(f'{program}: interrupted; the same command begins again')
    print(f'for {size[0]}x{size[1]} pixels ({source}):')
    for file in files:
        print(f'  {file}')
    print('copy them to the device, and run there:')
    print(f'  python measure_latency.py {args.out.name} --backend onnxruntime --out table.json')
