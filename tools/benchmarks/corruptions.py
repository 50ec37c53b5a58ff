# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How long the corruptions take, beside those of imagecorruptions-imaug.

Each condition is computed in turn by the published code and by ours in exact and in fast mode,
on one photograph of VOC's usual size, in one process with one thread, so that whatever else the
machine does falls on all. Figures are milliseconds of processor time, the least of all rounds,
averaged over the five severities. The ratios of the last line are for whole sets of conditions.
The published code runs as it is; its glass_blur is compiled before it is timed.

examples:
  python tools/benchmarks/corruptions.py                       # all, a minute
  python tools/benchmarks/corruptions.py --corruptions fog frost --repeats 20 --size 1280 720
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mmdet_adasap.fileio import write_atomically
from mmdet_adasap.robustness.corruptions import (
    CORRUPTIONS,
    EXTRAS,
    SEVERITIES,
    check_condition,
    corrupt,
)

sys.path.append(str(Path(__file__).parents[1] / 'demo'))
from builtin_sets.tiny_voc_scenes import load_photo

COLUMNS = ('reference', 'exact', 'fast')


def find_reference() -> Callable:
    """The published function; quits with what to install where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            from imagecorruptions import corrupt as published
    except ImportError as error:
        sys.exit(
            f'corruptions: the published code does not import ({error}): install it with '
            '`pip install --no-deps imagecorruptions-imaug numba scikit-image`'
        )
    return published


def measure(
    image: np.ndarray, name: str, severity: int, repeats: int, published: Callable
) -> dict[str, float]:
    """Time one condition.

    Args:
        image (ndarray): uint8, (H, W, 3), RGB.
        name (str): Corruption.
        severity (int): Its severity.
        repeats (int): Rounds.
        published (Callable): The reference.

    Returns:
        dict[str, float]: Milliseconds of each of ``COLUMNS``.
    """
    runs = {
        'reference': lambda: published(image, severity=severity, corruption_name=name),
        'exact': lambda: corrupt(image, name, severity, 0, 'exact'),
        'fast': lambda: corrupt(image, name, severity, 0),
    }
    least = dict.fromkeys(runs, float('inf'))
    for round_ in range(repeats + 1):
        for column, run in runs.items():
            started = time.process_time()
            run()
            # The first round compiles, reads photographs and makes tables.
            if round_:
                least[column] = min(least[column], 1000 * (time.process_time() - started))
    return least


def report(times: dict[str, dict[int, dict[str, float]]]) -> str:
    """Make a table: a line for each corruption, and their sum.

    Args:
        times (dict): Milliseconds by corruption, severity and column.

    Returns:
        str: The table, in Markdown.
    """
    rows = []
    for name, levels in times.items():
        rows.append((name, {c: np.mean([one[c] for one in levels.values()]) for c in COLUMNS}))
    benchmark = [levels for name, levels in times.items() if name not in EXTRAS]
    if benchmark:
        cells = [one for levels in benchmark for one in levels.values()]
        total = {column: sum(one[column] for one in cells) for column in COLUMNS}
        rows.append((f'{len(cells)} conditions', total))
    lines = [
        '| ms | reference | exact | fast | reference / exact | reference / fast |',
        '|---|---:|---:|---:|---:|---:|',
    ]
    for name, one in rows:
        ratios = [f'{one["reference"] / one[column]:.1f}' for column in COLUMNS[1:]]
        cells = [f'{one[column]:.1f}' for column in COLUMNS] + ratios
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=list(CORRUPTIONS),
        metavar='NAME',
        help='default: the 15 of the benchmark and the 4 extras',
    )
    parser.add_argument('--repeats', type=int, default=5, help='rounds (default: %(default)s)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(500, 375),
        metavar=('WIDTH', 'HEIGHT'),
        help='of the image (default: 500 375)',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='JSON file for all figures')
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f'--repeats must be 1 or more, not {args.repeats}')
    try:
        for name in args.corruptions:
            check_condition(name, 1)
    except ValueError as error:
        parser.error(str(error))
    if min(args.size) < 32:
        parser.error(f'--size must be 32 32 or more, not {args.size[0]} {args.size[1]}')
    return args


def main() -> None:
    args = parse_args()
    published = find_reference()
    cv2.setNumThreads(1)
    width, height = args.size
    photo = load_photo('china.jpg')
    part = photo.crop((0, 0, width, height)) if width <= 640 and height <= 427 else photo
    image = np.array(part.resize((width, height)))
    times = {}
    for name in args.corruptions:
        times[name] = {s: measure(image, name, s, args.repeats, published) for s in SEVERITIES}
        print(f'[{len(times)}/{len(args.corruptions)}] {name}', file=sys.stderr, flush=True)
    versions = f'OpenCV {cv2.__version__}, numpy {np.__version__}'
    print(
        f'{width} x {height} pixels, {versions}, one thread, processor time, the least of '
        f'{args.repeats} rounds\n\n{report(times)}'
    )
    if args.out:
        try:
            write_atomically(args.out, json.dumps(times, indent=2) + '\n')
        except OSError as error:
            sys.exit(f'corruptions: --out {error}')


if __name__ == '__main__':
    main()
