# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What an import of the package costs beside the library that it needs, in one process each.

`python -X importtime` gives the time of every module with all that it imports. Of a part of the
package this is divided by that of the library below it (torch for sharpness and pruning, OpenCV
and numpy for the corruptions) in the same process, so that a busy machine changes both.

examples:
  python tools/benchmarks/import_time.py
  python tools/benchmarks/import_time.py --repeats 9 --json import_time.json
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

LIBRARIES = {
    'mmdet_adasap.sharpness': ('torch',),
    'mmdet_adasap.pruning': ('torch',),
    'mmdet_adasap.robustness.corruptions': ('cv2', 'numpy', 'PIL.Image'),
}
"""A part of the package to what it cannot do without."""
# "import time:   self [us] |  cumulative | name", the name indented by its depth.
LINE = re.compile(r'import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--repeats', type=int, default=5, metavar='N', help='default: 5')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there, too')
    return parser.parse_args()


def import_times(module: str) -> dict[str, int]:
    """Import a module in a new process.

    Returns:
        dict[str, int]: Microseconds of each module that was imported, with all that it imported
        first; under '' those of the whole import statement.
    """
    program = f'import {module}'
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-c', program],
        capture_output=True,
        text=True,
        check=True,
    )
    found, total = {}, 0
    for line in done.stderr.splitlines():
        match = LINE.match(line)
        if match:
            found[match[4]] = int(match[2])
            if len(match[3]) == 1 and match[4].partition('.')[0] == module.partition('.')[0]:
                total += int(match[2])
    return {**found, '': total}


def measure(module: str, libraries: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Take the median of several imports of a part of the package.

    Returns:
        dict[str, float]: 'ms' of the import, 'library_ms' of what is below it, and their 'ratio'.
    """
    runs = []
    for _ in range(repeats):
        times = import_times(module)
        below = sum(times.get(library, 0) for library in libraries)
        runs.append((times[''] / below, times[''] / 1000, below / 1000))
    ratio, whole, library = map(statistics.median, zip(*runs, strict=True))
    return {'ratio': ratio, 'ms': whole, 'library_ms': library}


def main() -> None:
    args = parse_args()
    found = {}
    print(f'{"import":38}{"ms":>8}{"below, ms":>11}{"ratio":>8}  below')
    for module, libraries in LIBRARIES.items():
        found[module] = row = measure(module, libraries, args.repeats)
        print(
            f'{module:38}{row["ms"]:8.0f}{row["library_ms"]:11.0f}{row["ratio"]:8.3f}  '
            f'{", ".join(libraries)}'
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
    main()
