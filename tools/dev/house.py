# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
r"""Measure how a package is laid out, and say which limits it breaks.

What is counted:

  files           .py files without __init__.py; lines with blank ones and comments
  names twice     file names that occur in more than one folder, but for __main__.py
  circles         modules that import each other, directly or through others, by imports that run
                  with the module or lie under `if TYPE_CHECKING`; those inside functions do not
                  count. A name imported from a folder's face leads to its __init__.py, and so to
                  all that this imports
  across wings    pairs (file, module imported) of different wings, lazy imports too. A wing is a
                  folder of the package, or one of --wings inside it. "Through" leads to the
                  wing's __init__.py, "past" to a module behind it. Files at the top of the
                  package have no face: to import them is not counted
  way             of an entry function: how many files it calls into, itself or through others,
                  and how many pairs (calling file, called file) change the wing; the top of the
                  package is a wing here. Calls are told from names and annotations, without
                  running anything (tools/dev/call_graph.py says how), so a registry hides
                  what it builds, and both figures are for comparing one layout with another
  comments        lines with a comment, of all that are not blank; licence lines and docstrings
                  are no comments

examples:
  python tools/dev/house.py                        the package of this checkout
  python tools/dev/house.py --check                also exit with 1 if a limit is broken
  python tools/dev/house.py ../old/mmdet_adasap    another checkout, for before and after
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

from call_graph import CallGraph
from import_graph import Package

ROOT = Path(__file__).resolve().parent.parent.parent

# The limits of `make lint`. mmengine and torchmetrics, which this package follows, have a median
# of 189 and 172 lines a file. A file of under 80 is to be an extension point (a rule, a dataset,
# a metric) or a command; 20 leaves room for new ones. A file of over 400 holds two subjects.
SHORT, MOST_SHORT = 80, 20
LONG = 400
# measure_latency.py is copied alone to devices that have nothing of this package.
MAY_BE_LONG = ('latency/measure_latency.py',)

# Folders inside a wing that are wings of their own. --wings names those of an older checkout.
WINGS = (
    'robustness/corruptions',
    'robustness/datasets',
    'robustness/metrics',
    'robustness/report',
)
ENTRIES = ('evaluate_robustness', 'AdaSAPHook.after_train_iter')


def wing_of(package: Package, name: str, wings: tuple[str, ...] = WINGS) -> str:
    """Return the wing of a module: a folder, or '' for files at the top of the package."""
    folder = package.modules[name].path.parent.relative_to(package.folder).parts
    nested = '/'.join(folder[:2])
    return nested if nested in wings else '/'.join(folder[:1])


def measure_files(package: Package) -> dict:
    """Count files and lines, and find names that occur twice."""
    lines, stems = {}, defaultdict(list)
    for name, module in package.modules.items():
        if not module.is_face:
            lines[package.path(name)] = module.line_count
            if module.path.stem != '__main__':  # Python asks for this name in each folder it runs
                stems[module.path.stem].append(package.path(name))
    return {
        'files': len(lines),
        'median_lines': statistics.median(lines.values()) if lines else 0,
        'short': {path: count for path, count in lines.items() if count < SHORT},
        'long': {
            path: count
            for path, count in lines.items()
            if count > LONG and path not in MAY_BE_LONG
        },
        'twice': {stem: paths for stem, paths in stems.items() if len(paths) > 1},
    }


def measure_crossings(package: Package, wings: tuple[str, ...]) -> dict[str, list[str]]:
    """Sort the imports from wing to wing: past the face of the other wing, or through it."""
    found: dict[str, set[str]] = {'past': set(), 'through': set()}
    for each in package.all_imports:
        here, there = (wing_of(package, name, wings) for name in (each.importer, each.target))
        if there and here != there:
            face = '.'.join([package.name, *there.split('/')])
            kind = 'through' if each.target == face else 'past'
            found[kind].add(f'{package.path(each.importer)} -> {package.path(each.target)}')
    return {kind: sorted(pairs) for kind, pairs in found.items()}


def measure_way(package: Package, entry: str, wings: tuple[str, ...]) -> dict | None:
    """Count the files that an entry function calls into, and the changes of wing.

    Args:
        package (Package): The package.
        entry (str): ``function`` or ``Class.method``.
        wings (tuple[str, ...]): Folders inside a wing that are wings of their own.

    Returns:
        dict | None: Numbers and what was counted; None if there is no such function.
    """
    graph = CallGraph(package)
    start = graph.find(entry)
    if start is None:
        return None
    edges = graph.edges(start)
    files = {start.module, *(callee for _, callee in edges)}
    changes = [
        (caller, callee)
        for caller, callee in edges
        if wing_of(package, caller, wings) != wing_of(package, callee, wings)
    ]
    return {
        'files': len(files),
        'changes': len(changes),
        'passed': sorted(package.path(name) for name in files),
        'changing': sorted(f'{package.path(a)} -> {package.path(b)}' for a, b in changes),
    }


def measure_comments(package: Package) -> float:
    """Return the share of lines with a comment, in percent of those that are not blank."""
    comments = lines = 0
    for module in package.modules.values():
        lines += sum(bool(line.strip()) for line in module.source.splitlines())
        for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
            if token.type == tokenize.COMMENT and not token.string.startswith('# Copyright'):
                comments += 1
    return 100 * comments / lines if lines else 0.0


def measure(
    package: Package, entries: tuple[str, ...] = ENTRIES, wings: tuple[str, ...] = WINGS
) -> dict:
    """Measure all of it, as plain data."""
    return {
        'package': package.name,
        **measure_files(package),
        'circles': [[package.path(name) for name in circle] for circle in package.circles()],
        'crossings': measure_crossings(package, wings),
        'ways': {entry: measure_way(package, entry, wings) for entry in entries},
        'comments_percent': round(measure_comments(package), 2),
    }


def broken_limits(found: dict) -> list[str]:
    """Say which limits are broken, what breaks them, and what to do.

    Args:
        found (dict): As :func:`measure` returns it.

    Returns:
        list[str]: A sentence for each limit or file; empty if all is well.
    """
    faults = [
        f'circle: {", ".join(circle)} import each other; move what they share below them'
        for circle in found['circles']
    ]
    faults += [
        f'name twice: {", ".join(paths)}; give each the name of what it alone holds'
        for paths in found['twice'].values()
    ]
    faults += [
        f'too long: {path} has {count} lines, {LONG} are allowed; split it by subject'
        for path, count in found['long'].items()
    ]
    if len(found['short']) > MOST_SHORT:
        faults.append(
            f'too many short files: {len(found["short"])} have under {SHORT} lines, {MOST_SHORT} '
            'may; put those that are no extension point or command to their subject'
        )
    return faults


def table(found: dict) -> str:
    """Lay out the figures in columns: what, how much, and the limit."""
    past, through = (len(found['crossings'][kind]) for kind in ('past', 'through'))
    rows = [
        ('measure', found['package'], 'limit'),
        ('files without __init__.py', str(found['files']), ''),
        ('median lines', f'{found["median_lines"]:g}', ''),
        (f'files under {SHORT} lines', str(len(found['short'])), str(MOST_SHORT)),
        (f'files over {LONG} lines', str(len(found['long'])), '0'),
        ('file names that occur twice', str(len(found['twice'])), '0'),
        ('circles', str(len(found['circles'])), '0'),
        ("imports across wings past the other's face", str(past), ''),
        ("imports across wings through the other's face", str(through), ''),
    ]
    for entry, way in found['ways'].items():
        figures = 'not found' if way is None else f'{way["files"]} / {way["changes"]}'
        rows.append((f'{entry}: files / changes of wing', figures, ''))
    rows.append(('lines with a comment', f'{found["comments_percent"]:.1f} %', ''))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return '\n'.join(
        f'{what:<{widths[0]}}  {value:>{widths[1]}}  {limit:>{widths[2]}}'.rstrip()
        for what, value, limit in rows
    )


def lists(found: dict, verbose: bool) -> str:
    """Name the files behind the figures, in blocks under a heading."""
    by_lines = {
        f'under {SHORT} lines': found['short'],
        f'over {LONG} lines': found['long'],
    }
    blocks = {
        heading: [f'{count:>4}  {path}' for path, count in sorted(files.items(), key=_by_count)]
        for heading, files in by_lines.items()
    }
    blocks['names that occur twice'] = [', '.join(paths) for paths in found['twice'].values()]
    blocks['circles'] = [', '.join(circle) for circle in found['circles']]
    if verbose:
        blocks["across wings past the other's face"] = found['crossings']['past']
        for entry, way in found['ways'].items():
            if way is not None:
                blocks[f'{entry}: files'] = way['passed']
                blocks[f'{entry}: changes of wing'] = way['changing']
    return '\n\n'.join(
        '\n'.join([f'{heading}:', *(f'  {line}' for line in lines)])
        for heading, lines in blocks.items()
        if lines
    )


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'package',
        nargs='?',
        type=Path,
        default=ROOT / 'mmdet_adasap',
        help="the package's folder (default: mmdet_adasap/ of this checkout)",
    )
    parser.add_argument(
        '--check', action='store_true', help='exit with 1 if a limit is broken; print only which'
    )
    parser.add_argument('--json', action='store_true', help='print all of it as JSON')
    parser.add_argument(
        '--verbose',
        action='store_true',
        help="also list the imports past a wing's face, and the files on each way",
    )
    parser.add_argument(
        '--entry',
        action='append',
        metavar='NAME',
        help='function or Class.method whose way to measure; may be repeated '
        f'(default: {", ".join(ENTRIES)})',
    )
    parser.add_argument(
        '--wings',
        nargs='+',
        metavar='FOLDER',
        default=WINGS,
        help=f'folders inside a wing that are wings of their own (default: {" ".join(WINGS)})',
    )
    return parser.parse_args()


def main() -> None:
    """Print the figures, or with ``--check`` what is broken."""
    args = parse_args()
    try:
        package = Package(args.package)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        sys.exit(f'house: {error}')
    found = measure(package, tuple(args.entry or ENTRIES), tuple(args.wings))
    faults = broken_limits(found)
    if args.json:
        print(json.dumps({**found, 'broken': faults}, indent=2))
    elif not args.check:
        print('\n\n'.join(filter(None, (table(found), lists(found, args.verbose)))))
    if args.check:
        for fault in faults:
            print(f'house: {fault}', file=sys.stderr)
        sys.exit(bool(faults))


if __name__ == '__main__':
    main()
