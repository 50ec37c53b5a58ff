# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Make the built-in VOC: handwritten digits on photographs, a few hundred small images."""

import argparse
import sys
from pathlib import Path

from builtin_sets.tiny_voc import build_tiny_voc, draw_preview


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', required=True, help='folder that VOCdevkit/VOC2007 is put into')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another set')
    parser.add_argument('--train', type=int, default=200, help='number of training images')
    parser.add_argument('--val', type=int, default=200, help='number of validation images')
    parser.add_argument('--test', type=int, default=200, help='number of test images')
    parser.add_argument('--size', type=int, default=160, help='side of an image in pixels')
    parser.add_argument('--force', action='store_true', help='replace a set with other settings')
    parser.add_argument('--preview', metavar='FILE.png', help='also draw some images with boxes')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    preview = args.pop('preview')
    try:
        if preview and Path(preview).suffix.lower() not in ('.png', '.jpg'):
            raise ValueError(f'--preview {preview}: name a .png or .jpg file')
        built = build_tiny_voc(**args)
    except (ValueError, OSError) as error:
        sys.exit(f'make_tiny_voc: {error}')
    print(f'{args["out"]}: {"written" if built else "already there with these settings"}')
    print(f"data_root='{args['out']}/VOCdevkit/'")
    if preview:
        try:
            draw_preview(args['out'], preview)
        except OSError as error:
            sys.exit(f'make_tiny_voc: --preview {preview}: {error}')
        print(f'{preview}: written')


if __name__ == '__main__':
    main()
