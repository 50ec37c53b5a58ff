# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Look at the environment: what is installed, whether it imports, and what does not go together.

Works where torch, mmengine, mmcv or mmdet are missing or broken. docs/versions.md has the
environments that were tested.
"""

import base64
import hashlib
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec

from .distributions import (
    FORKS,
    IMAGECORRUPTIONS,
    ORIGINALS,
    OTHERS,
    family_of_openmmlab,
    installed,
    package_folder,
    release,
)
from .import_trial import PACKAGE, Trial, try_imports
from .remedies import (
    TARGETS,
    complete,
    is_for_numpy_1,
    refused_version,
    reinstall,
    remedy,
    uninstall,
    use_numpy_1,
)
from .version import __version__

# mmdet/__init__.py imports next to nothing; what fails lies in its parts.
TRIED = {'mmdet': 'mmdet.models'}
"""What is imported of a package where that is not the package itself."""

TRIAL = ('torch', 'torch.utils.cpp_extension', 'torchvision', 'numpy', 'cv2', 'mmengine', 'mmcv')
TRIAL += ('mmcv._ext', 'mmcv.ops', 'mmdet.models', 'mmpretrain', PACKAGE)
"""All that is imported, each after what it needs."""


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


def inspect_packages(report: Report, trial: Trial) -> None:
    """Fill in the packages, and say which are missing, or installed more than once."""
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
        if name in FORKS and len(package.distributions) > 1:
            both = ' and '.join(f'{key} {value}' for key, value in package.distributions.items())
            report.problems.append(
                f'{name} is installed twice, as {both}, in one folder: what runs is a mixture. '
                f'Remedy: {uninstall(*package.distributions)}, then {remedy(name)}'
            )
        package.error = trial.errors.get(TRIED.get(name, name), '')
    if all(find_spec(name) is None for name in ('mmdet', 'mmpretrain')):
        report.problems.append(
            f'Neither mmdet nor mmpretrain is installed. Remedy: {remedy("mmdet")}'
        )


def inspect_families(report: Report) -> None:
    """Report packages of OpenMMLab beside those of its fork; what is both is said already."""
    family = family_of_openmmlab()
    others = [p for p in report.packages.values() if p.family not in ('', 'both', family)]
    if not others:
        return
    listed = ', '.join(f'{p.name} {p.family}' for p in report.packages.values() if p.family)
    distributions = [name for package in others for name in package.distributions]
    commands = ' Then '.join(remedy(package.name) for package in others)
    report.problems.append(
        f'Packages of OpenMMLab and of its onedl fork are mixed ({listed}). Remedy: '
        f'{uninstall(*distributions)}, then {commands}'
    )


def inspect_mmcv_ops(report: Report, trial: Trial) -> None:
    """Fill in whether mmcv has its compiled operators."""
    mmcv = report.packages['mmcv']
    if find_spec('mmcv') is None or mmcv.error:
        return
    # The compiled part first: mmcv.ops would hide its error behind one of its own.
    error = trial.errors.get('mmcv._ext', '') or trial.errors.get('mmcv.ops', '')
    if error:
        what = ' and '.join(f'{name} {version}' for name, version in mmcv.distributions.items())
        # A part that is there and does not load would fail later; one that is not there is not
        # missed by classifiers, which import it where they need it.
        is_absent = error.endswith("No module named 'mmcv._ext'")
        is_missed = find_spec('mmdet') is not None or find_spec('mmpretrain') is None
        text = (
            f'{what or "mmcv"} has no working compiled operators ({error}): no NMS, no RoIAlign.'
        )
        if is_absent and not is_missed:
            report.notes.append(
                f'{text} Classifiers need none. For detectors: {reinstall("mmcv")}'
            )
        else:
            report.problems.append(f'{text} Remedy: {reinstall("mmcv")}')
        return
    cuda = trial.mmcv_cuda
    if cuda:
        report.mmcv_ops = 'CPU' if cuda == 'not available' else f'CPU and CUDA {cuda}'
    if report.gpus and report.mmcv_ops == 'CPU':
        target = TARGETS[family_of_openmmlab()]
        report.notes.append(
            'There is a GPU, but mmcv was compiled for the CPU alone: its operators refuse GPU '
            f'tensors. Remedy: `FORCE_CUDA=1 {target}` in a checkout of mmdet_adasap, or the same '
            'variable and MMCV_WITH_OPS=1 where you compile it, with nvcc installed.'
        )


def inspect_import_errors(report: Report, trial: Trial) -> None:
    """Report what does not import, and not again what only follows from it."""
    bad = {name for name in report.packages if find_spec(name) is None}
    said = {'', trial.errors.get('mmcv._ext', ''), trial.errors.get('mmcv.ops', '')}
    for name, package in report.packages.items():
        if not package.error:
            continue
        if not _follows(package.error, bad, said):
            report.problems.append(_import_problem(name, package))
        bad.add(name)
        said.add(package.error)
    error = trial.errors.get(PACKAGE, '')
    if not _follows(error, bad, said):
        report.problems.append(
            f'mmdet_adasap cannot be imported ({error}). Remedy: first what else is listed here; '
            'where there is nothing else, the versions of docs/versions.md.'
        )
    reached = list(trial.errors)
    if reached and PACKAGE not in trial.errors:
        report.notes.append(f'What comes after {reached[-1]} was not imported; it may fail, too.')


def _follows(error: str, bad: Collection[str], said: Collection[str]) -> bool:
    """Return whether an error is none, or only that of another package once more."""
    missing = re.search(r"No module named '(\w+)", error)
    return error in said or (missing is not None and missing[1] in bad)


def _import_problem(name: str, package: Package) -> str:
    """Say what is wrong with a package that cannot be imported, and what helps."""
    refused = refused_version(name, package.error)
    if refused is not None:
        other, version, command = refused
        own = ' and '.join(package.distributions.values())
        issue = ' See open-mmlab/mmdetection issue 11763.' if name == 'mmdet' else ''
        return (
            f'{name} {own} refuses {other} {version} ({package.error}).{issue} Remedy: {command}'
        )
    missing = re.search(r"No module named '(\w+)", package.error)
    command = complete(name) if missing and missing[1] != name else reinstall(name)
    return f'{name} is installed but cannot be imported ({package.error}). Remedy: {command}'


def inspect_torch(report: Report, trial: Trial) -> None:
    """Report what does not go together with the version of torch."""
    torch, numpy, mmengine = (
        ' and '.join(report.packages[name].distributions.values())
        for name in ('torch', 'numpy', 'mmengine')
    )
    if release(numpy) >= (2,) and is_for_numpy_1(torch):
        report.problems.append(
            f'torch {torch} is compiled for numpy 1, and numpy {numpy} is installed: tensors and '
            f'arrays cannot be converted. Remedy: {use_numpy_1()}'
        )
    elif release(numpy) >= (2,) and family_of_openmmlab() == 'original':
        report.notes.append(
            f"OpenMMLab's packages are older than numpy {numpy}; mmdet_adasap tests them with "
            f'numpy 1.26. If one fails: {use_numpy_1()}'
        )
    # torch.load reads plain data alone by default from 2.6 on; mmengine says so itself from
    # 0.10.8, which is OneDL's.
    if release(torch) >= (2, 6) and () < release(mmengine) <= (0, 10, 7):
        report.notes.append(
            f'mmengine {mmengine} cannot read its own training checkpoints with torch {torch} '
            '(open-mmlab/mmengine issues 1650 and 1655). Importing mmdet_adasap mends it: without '
            "custom_imports = dict(imports=['mmdet_adasap']) in the config, test.py and --resume "
            'fail.'
        )
    error = trial.errors.get('torch.utils.cpp_extension', '')
    if error and not report.packages['torch'].error:
        text = f'torch {torch} does not find what it compiles with ({error}), nor will mmcv'
        text = f'{text}; on a GPU no training starts. Remedy: {remedy("setuptools")}'
        (report.problems if report.gpus else report.notes).append(text)


def inspect_shared_folders(report: Report) -> None:
    """Report distributions that have overwritten each other."""
    if len(installed(IMAGECORRUPTIONS)) > 1:
        report.problems.append(
            'imagecorruptions and imagecorruptions-imaug are both installed, in one folder; live '
            f'is {report.imagecorruptions}. Remedy: {uninstall(*IMAGECORRUPTIONS)}, '
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
            f'{" and ".join(cv2)} are installed in one folder. If cv2 fails: {reinstall("cv2")}'
        )


def inspect() -> Report:
    """Look at the environment.

    Returns:
        Report: What is installed, and what is wrong with it; without mmdet's tools.
    """
    # Those that are missing are known without a trial.
    names = [name for name in TRIAL if find_spec(name.partition('.')[0]) is not None]
    trial = try_imports(names)
    report = Report(platform.python_version(), __version__, gpus=trial.gpus)
    report.imagecorruptions = live_imagecorruptions()
    inspect_packages(report, trial)
    inspect_families(report)
    inspect_torch(report, trial)
    inspect_mmcv_ops(report, trial)
    inspect_shared_folders(report)
    if trial.ssd_mended:
        report.notes.append(
            "SSDHead of this mmdet cannot predict ('loss_cls' is missing); importing "
            'mmdet_adasap mends it.'
        )
    inspect_import_errors(report, trial)
    return report
