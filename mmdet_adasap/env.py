# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Say what is installed, where mmdet's tools are, and what is wrong.

::

    python -m mmdet_adasap.env
    python $(python -m mmdet_adasap.env --tool train) config.py

Works where mmengine, mmcv or mmdet are missing or broken.
"""

import argparse
import base64
import contextlib
import hashlib
import importlib
import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .distributions import (
    FORKS,
    IMAGECORRUPTIONS,
    ORIGINALS,
    OTHERS,
    installed,
    package_folder,
)
from .fileio import quiet_on_closed_pipe


@dataclass
class Package:
    """One import name: which distributions provide it, and whether it imports.

    Args:
        name (str): The import name.
        distributions (dict[str, str]): Versions of the distributions that install it.
        family (str): 'onedl', 'original', 'both', or '' where there is only one.
        error (str): What its import raised; '' if it imports or was not tried.
    """

    name: str
    distributions: dict[str, str]
    family: str = ''
    error: str = ''


@dataclass
class Report:
    """All that ``python -m mmdet_adasap.env`` prints, as plain data."""

    python: str
    mmdet_adasap: str
    packages: dict[str, Package] = field(default_factory=dict)
    mmcv_ops: str = 'none'
    gpus: list[str] = field(default_factory=list)
    imagecorruptions: str = 'none'
    tools: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
        help_ = f' Remedy: {remedy(whose)}' if whose in FORKS else ''
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


def remedy(name: str) -> str:
    """Return the command that installs a package of the default stack."""
    distribution = (FORKS.get(name) or OTHERS[name])[0]
    if name == 'mmcv':
        return (
            '`make install` in a checkout of mmdet_adasap, which compiles it; else '
            f'`MMCV_WITH_OPS=1 pip install --no-build-isolation {distribution}`.'
        )
    return f'`pip install {distribution}`, or `make install` in a checkout of mmdet_adasap.'


def try_import(name: str) -> str:
    """Import a module and return what went wrong, '' if nothing did."""
    try:
        # Some packages print while they are imported, and ours is an output to be parsed.
        with contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    except Exception as error:  # broken binaries and version checks raise all kinds
        return f'{type(error).__name__}: {str(error).strip()}'
    return ''


def live_imagecorruptions() -> str:
    """Return the distribution that the shared folder ``imagecorruptions`` comes from.

    Both write the same files, the last one wins: the one whose recorded hash fits is live.
    """
    folder = package_folder('imagecorruptions')
    if folder is None:
        return 'none'
    content = (folder / 'corruptions.py').read_bytes()
    # As RECORD has it: base64 for URLs, without padding (PEP 376 and the wheel format).
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')
    for name, version in installed(IMAGECORRUPTIONS).items():
        for file in metadata.files(name) or ():
            same = file.hash is not None and file.hash.value == digest
            if file.name == 'corruptions.py' and same:
                return f'{name} {version}'
    return f'unknown, in {folder}'


def inspect_packages(report: Report) -> None:
    """Fill in the packages, and what is wrong with each alone."""
    for name in [*OTHERS, *FORKS]:
        forks = installed(FORKS.get(name, ()))
        originals = installed(ORIGINALS.get(name, OTHERS.get(name, ())))
        package = Package(name, {**forks, **originals})
        report.packages[name] = package
        if name in FORKS:
            package.family = 'both' if forks and originals else 'onedl' if forks else ''
            package.family = package.family or ('original' if originals else '')
        if find_spec(name) is None:
            if name not in ('mmdet', 'mmpretrain'):
                report.problems.append(f'{name} is not installed. Remedy: {remedy(name)}')
            continue
        if package.family == 'both':
            both = ' and '.join(f'{key} {value}' for key, value in package.distributions.items())
            report.problems.append(
                f'{name} is installed twice, as {both}, in one folder: what runs is a mixture. '
                f'Remedy: `pip uninstall {" ".join(package.distributions)}`, then install one.'
            )
        # mmdet/__init__.py imports next to nothing; what fails lies in its parts.
        package.error = try_import('mmdet.models' if name == 'mmdet' else name)
    if all(find_spec(name) is None for name in ('mmdet', 'mmpretrain')):
        report.problems.append(
            f'Neither mmdet nor mmpretrain is installed. Remedy: {remedy("mmdet")}'
        )


def inspect_mmcv_ops(report: Report) -> None:
    """Fill in whether mmcv has its compiled operators."""
    mmcv = report.packages['mmcv']
    if find_spec('mmcv') is None or mmcv.error:
        return
    # The compiled part first: mmcv.ops would hide its error behind one of its own.
    error = try_import('mmcv._ext')
    if not error:
        error = try_import('mmcv.ops')
    if error:
        report.problems.append(
            f'mmcv has no working compiled operators ({error}): no NMS, no RoIAlign. Remedy: '
            f'`pip uninstall {" ".join(mmcv.distributions)}`, then {remedy("mmcv")}'
        )
        return
    from mmcv.ops import get_compiling_cuda_version

    cuda = get_compiling_cuda_version()
    report.mmcv_ops = 'CPU' if cuda == 'not available' else f'CPU and CUDA {cuda}'
    if report.gpus and report.mmcv_ops == 'CPU':
        report.notes.append(
            'There is a GPU, but mmcv was compiled for the CPU alone: its operators refuse GPU '
            "tensors. Remedy: a prebuilt wheel (`mim install mmcv`, or OneDL's wheel index), or "
            '`FORCE_CUDA=1 make install` where nvcc is installed.'
        )


def inspect_import_errors(report: Report) -> None:
    """Report packages that do not import; a consequence of missing operators only once."""
    for package in report.packages.values():
        if package.error:
            dists = ' '.join(f'{key}=={value}' for key, value in package.distributions.items())
            report.problems.append(
                f'{package.name} is installed but cannot be imported ({package.error}). '
                'Remedy: first what else is listed here, then '
                f'`pip install --force-reinstall --no-deps {dists or package.name}`.'
            )


def inspect_combinations(report: Report) -> None:
    """Report packages that do not go together."""
    families = {name: report.packages[name].family for name in FORKS}
    if {'onedl', 'original'} <= set(families.values()):
        listed = ', '.join(f'{name} {family}' for name, family in families.items() if family)
        report.problems.append(
            f'Packages of OpenMMLab and of its onedl fork are mixed ({listed}). Remedy: '
            'uninstall one family and install the other as a whole, '
            "`pip install 'mmdet_adasap[onedl]'` or `pip install 'mmdet_adasap[openmmlab]'`."
        )
    numpy = report.packages['numpy'].distributions.get('numpy', '0')
    if 'original' in families.values() and int(numpy.split('.')[0]) >= 2:
        report.problems.append(
            f'The original OpenMMLab packages are compiled for numpy 1, and numpy {numpy} is '
            "installed. Remedy: `pip install 'numpy<2'`."
        )
    if len(installed(IMAGECORRUPTIONS)) > 1:
        report.problems.append(
            'imagecorruptions and imagecorruptions-imaug are both installed, in one folder; live '
            f'is {report.imagecorruptions}. Remedy: `pip uninstall {" ".join(IMAGECORRUPTIONS)}`, '
            'then `pip install --no-deps imagecorruptions-imaug`.'
        )
    elif report.imagecorruptions.startswith('imagecorruptions '):
        report.notes.append(
            f'{report.imagecorruptions} fails with current numpy and scikit-image; '
            'imagecorruptions-imaug works. mmdet_adasap runs neither; frost takes its photographs '
            'from whichever is there.'
        )
    cv2 = report.packages['cv2'].distributions
    if len(cv2) > 1:
        report.notes.append(
            f'{" and ".join(cv2)} are installed in one folder. If cv2 fails, uninstall all of '
            'them and install opencv-python-headless.'
        )


def inspect_mmdet(report: Report) -> None:
    """Fill in mmdet's tools and whether its SSDHead needs this package's mending."""
    if find_spec('mmdet') is None:
        return
    for name in ('train', 'test'):
        try:
            report.tools[f'{name}.py'] = str(find_tool(name))
        except FileNotFoundError as error:
            report.problems.append(f'{error} Remedy: reinstall mmdet, {remedy("mmdet")}')
    if not report.packages['mmdet'].error:
        # Not at the top of this file: mmengine, which this imports, may be missing or broken.
        from .integration import ssd_head_is_mended

        if ssd_head_is_mended():
            report.notes.append(
                "SSDHead of this mmdet cannot predict ('loss_cls' is missing); importing "
                'mmdet_adasap mends it.'
            )


def collect() -> Report:
    """Look at the environment.

    Returns:
        Report: What is installed, and what is wrong with it.
    """
    from .version import __version__

    report = Report(platform.python_version(), __version__)
    inspect_packages(report)
    if find_spec('torch') is not None and not report.packages['torch'].error:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        report.gpus = [torch.cuda.get_device_name(index) for index in range(count)]
    report.imagecorruptions = live_imagecorruptions()
    inspect_mmcv_ops(report)
    inspect_combinations(report)
    inspect_mmdet(report)
    inspect_import_errors(report)
    return report


def render(report: Report) -> str:
    """Write a report as text.

    Args:
        report (Report): What ``collect`` has found.

    Returns:
        str: Lines for a person.
    """
    families = {'onedl': 'onedl fork', 'original': 'original OpenMMLab', 'both': 'BOTH'}
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
            versions += f', {families[package.family]}'
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
    # As `adasap env` it is called so; started with -m, argparse would call it env.py.
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


if __name__ == '__main__':
    sys.exit(main())
