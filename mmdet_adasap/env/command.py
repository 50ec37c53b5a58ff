# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Say what is installed, where mmdet's tools are, and what is wrong.

::

    python -m mmdet_adasap.env
    python $(python -m mmdet_adasap.env --tool train) config.py

Works where torch, mmengine, mmcv or mmdet are missing or broken.
"""

import argparse
import json
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from ..distributions import FORKS, package_folder
from ..fileio import quiet_on_closed_pipe
from .inspection import FAMILIES, Report, inspect_environment
from .remedies import Remedies


def find_tool(name: str) -> Path:
    """Find a script of mmdet's or mmpretrain's ``tools`` folder without importing either.

    Args:
        name (str): Its path below ``tools``, with or without ``.py``: ``train``, ``test``,
            ``analysis_tools/get_flops``. It is mmdet's, or that of the package that is named
            before it as in a config's base, ``mmpretrain::train``.

    Returns:
        Path: The script in the installed package, or in the clone that is installed editable.

    Raises:
        FileNotFoundError: If the package is not installed or has no such script.
    """
    whose, _, name = name.rpartition('::')
    whose = whose or 'mmdet'
    package = package_folder(whose)
    if package is None:
        command = Remedies.of_this_environment().install(whose) if whose in FORKS else ''
        help_ = f' Remedy: {command}' if command else ''
        raise FileNotFoundError(f'{whose} is not installed, so there is no tool {name!r}.{help_}')
    file = name if name.endswith(('.py', '.sh')) else f'{name}.py'
    folders = [package / '.mim' / 'tools', package.parent / 'tools']
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    raise FileNotFoundError(
        f'{whose} has no tool {name!r}: looked for {file} in '
        f'{" and ".join(str(folder) for folder in folders)}.'
    )


def collect() -> Report:
    """Look at the environment, and for mmdet's tools.

    Returns:
        Report: What is installed, and what is wrong with it.
    """
    report = inspect_environment()
    reinstall = Remedies.of_this_environment().reinstall('mmdet')
    for name in ('train', 'test') if find_spec('mmdet') is not None else ():
        try:
            report.tools[f'{name}.py'] = str(find_tool(name))
        except FileNotFoundError as error:
            report.problems.append(f'{error} Remedy: {reinstall}')
    return report


def render(report: Report) -> str:
    """Write a report as text.

    Args:
        report (Report): What ``collect`` has found.

    Returns:
        str: Lines for a person.
    """
    rows = [('python', report.python), ('mmdet_adasap', report.mmdet_adasap)]
    for package in report.packages.values():
        versions = ', '.join(
            version if name == package.name else f'{version} ({name})'
            for name, version in package.distributions.items()
        )
        if not versions:
            folder = package_folder(package.name)
            versions = 'not installed' if folder is None else f'not by pip, in {folder}'
        if package.family:
            versions += f', {FAMILIES[package.family]}'
        rows.append((package.name, versions))
    rows.append(('mmcv operators', report.mmcv_ops))
    rows.append(('GPU', ', '.join(report.gpus) or 'none'))
    rows.append(('imagecorruptions', report.imagecorruptions))
    rows += [(f'mmdet {name}', path) for name, path in report.tools.items()]
    width = max(len(label) for label, _ in rows)
    lines = [f'{label:<{width}}  {value}' for label, value in rows]
    lines += [f'note: {note}' for note in report.notes]
    lines += [f'PROBLEM: {problem}' for problem in report.problems]
    if not report.problems:
        lines.append('Nothing is wrong.')
    return '\n'.join(lines)


@quiet_on_closed_pipe
def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv (list[str], optional): Its arguments. Defaults to those of the process.

    Returns:
        int: 0, or 1 if the tool was not found or something is wrong.
    """
    # As `adasap env` it is called so; started with -m, argparse would call it __main__.py.
    prog = sys.argv[0] if sys.argv[0].startswith('adasap') else 'python -m mmdet_adasap.env'
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        '--tool', help="print only the path of mmdet's tools/TOOL.py, or mmpretrain::TOOL's"
    )
    output.add_argument('--json', action='store_true', help='print the report as JSON')
    args = parser.parse_args(argv)
    if args.tool is not None:
        try:
            print(find_tool(args.tool))
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    report = collect()
    print(json.dumps(asdict(report), indent=2) if args.json else render(report))
    return 1 if report.problems else 0
