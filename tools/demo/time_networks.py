# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Time the networks of slim detectors in onnxruntime, as shares of the dense one's time.

Each runs beside the dense network, in turns, with batch 1 and one thread. Preprocessing, decoding
and NMS are not in it. Writes JSON: a name to its share.

examples:
  python tools/demo/time_networks.py CONFIG --image-size 128 --out times.json \
      dense=dense.pth AdaSAP=slim.pth
"""

import argparse
import json
from pathlib import Path

from demo_parts.program import quietly, say


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='the unpruned config')
    parser.add_argument(
        'models', nargs='+', metavar='NAME=CHECKPOINT', help='the first one is the dense model'
    )
    parser.add_argument('--image-size', type=int, required=True, metavar='PIXELS')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with quietly():
        from mmdet_adasap.apis import init_pruned_detector
        from mmdet_adasap.export import time_share
        from mmdet_adasap.fileio import write_atomically

    found: dict[str, float] = {}
    dense = None
    for name, _, checkpoint in (each.partition('=') for each in args.models):
        with quietly():
            model = init_pruned_detector(args.config, checkpoint, device='cpu')
            dense = model if dense is None else dense
            shape = (1, 3, args.image_size, args.image_size)
            found[name] = 1.0 if model is dense else time_share(dense, model, shape, 'onnxruntime')
        say(f'{name}: {found[name]:.3f} of the dense network')
    write_atomically(args.out, json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
    main()
