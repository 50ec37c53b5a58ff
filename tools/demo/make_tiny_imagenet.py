# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Make the built-in classification set: one handwritten digit on a photograph, ten classes.

It has ImageNet's layout, OUT/train/0_zero/*.png and so on to OUT/test/9_nine/, so that mmpretrain
reads it: dict(type='CustomDataset', data_root=OUT, data_prefix='train'). Pixels are real:
scikit-learn's scanned digits over photographs from scikit-image and scikit-learn. train, val and
test share neither digits nor regions of photographs. Choose settings on val, report test.
"""

import argparse
import sys

from builtin_sets.tiny_imagenet import build_tiny_imagenet


def parse_args() -> argparse.Namespace:
    summary, details = __doc__.split('\n\n', 1)
    parser = argparse.ArgumentParser(
        description=summary, epilog=details, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', required=True, help='folder that train/, val/ and test/ go into')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another set')
    parser.add_argument('--train', type=int, default=300, help='training images of each class')
    parser.add_argument('--val', type=int, default=50, help='validation images of each class')
    parser.add_argument('--test', type=int, default=100, help='test images of each class')
    parser.add_argument('--size', type=int, default=48, help='side of an image in pixels')
    parser.add_argument('--force', action='store_true', help='replace a set with other settings')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    try:
        built = build_tiny_imagenet(**args)
    except (ValueError, OSError) as error:
        sys.exit(f'make_tiny_imagenet: {error}')
    print(f'{args["out"]}: {"written" if built else "already there with these settings"}')


if __name__ == '__main__':
    main()
