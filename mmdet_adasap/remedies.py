# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Commands that mend an environment, of the family of OpenMMLab's packages that the user has.

Each names packages of that family alone, in versions that were tested together, and is right when
those in front of it have been run. docs/versions.md has the whole recipes.
"""

import re
import shlex
import sys

from .distributions import FORKS, ORIGINALS, OTHERS, family_of_openmmlab, installed, release

PINNED = {
    'onedl': {
        'torch': '2.11.0',
        'torchvision': '0.26.0',
        'mmengine': '0.10.12',
        'mmcv': '2.3.6',
        'mmdet': '3.5.1',
        'mmpretrain': '1.3.6',
    },
    'original': {
        'torch': '2.1.2',
        'torchvision': '0.16.2',
        'mmengine': '0.10.7',
        'mmcv': '2.1.0',
        'mmdet': '3.3.0',
        'mmpretrain': '1.2.0',
    },
}
"""Versions that were tested together: those of requirements/, which an installed package lacks."""

BOUNDS = {
    'onedl': {
        'numpy': 'numpy',
        'cv2': 'opencv-python-headless',
        'setuptools': 'setuptools>=77,<81',
    },
    'original': {
        'numpy': 'numpy<2',
        'cv2': 'opencv-python-headless<4.12',
        'setuptools': 'setuptools<70',
    },
}
"""What else a family needs. torch 2.1 is compiled for numpy 1, which OpenCV's builds refuse from
4.12 on, and takes a part of pkg_resources that setuptools has lost in its version 70."""

LAST_PYTHON = {'onedl': (3, 12), 'original': (3, 11)}
"""The last Python that there are builds of the pinned torch for."""

REFUSED = re.compile(
    r'(MMCV|MMEngine)==(\S+) is used but incompatible.*?>=([\w.]+), *<=?([\w.]+\w)'
)
"""What mmdet and mmpretrain raise on a version of another package that they do not take."""

TARGETS = {'onedl': 'make install', 'original': 'make install-original'}


def remedy(name: str, versions: str = '') -> str:
    """Return the command that installs a package that is missing or was uninstalled.

    Args:
        name (str): Its import name, a key of FORKS or OTHERS.
        versions (str): As ``>=2.0.0,<2.1.0``. Defaults to the tested one.

    Returns:
        str: Commands between backticks, with ``then`` between them, and a full stop.
    """
    family = family_of_openmmlab()
    if name in ('torch', 'torchvision'):
        return _install_torch(family)
    if name in BOUNDS[family]:
        return f'{_pip("install", BOUNDS[family][name], *_beside(name))}.'
    distribution = (FORKS if family == 'onedl' else ORIGINALS)[name][0]
    requirement = f'{distribution}{versions or "==" + PINNED[family][name]}'
    tools = _pip('install', BOUNDS[family]['setuptools'], 'wheel', 'ninja', 'packaging')
    if name != 'mmcv':
        source = _from_source(name)
        command = _pip('install', *source, requirement, *_beside(name))
        return f'{tools}, then {command}.' if source else f'{command}.'
    # --no-cache-dir: pip's cache may hold one that was built without torch, or for another.
    build = _pip('install', '--no-build-isolation', '--no-cache-dir', '--no-deps', requirement)
    return (
        f'{tools}, then `MMCV_WITH_OPS=1 {build[1:]}, which compiles for minutes; or '
        f'`{TARGETS[family]}` in a checkout of mmdet_adasap, for a new environment.'
    )


def reinstall(name: str) -> str:
    """Return the commands for a package that is installed and cannot be imported."""
    found = _installed(name)
    if found and name in ('mmcv', 'torchvision', 'cv2'):
        # Compiled for other packages, or without a library of the system: the same would fail.
        return f'{uninstall(*found)}, then {remedy(name)}'
    options = ['--force-reinstall', '--no-deps', *_from_source(name)]
    command = _pip('install', *options, *_requirements(name))
    return f'{command}{_index(name)}.'


def complete(name: str) -> str:
    """Return the command that installs what a package asks for and does not find."""
    return f'{_pip("install", *_from_source(name), *_requirements(name), *_beside(name))}.'


def uninstall(*distributions: str) -> str:
    """Return the command that removes distributions."""
    return f'`pip uninstall -y {" ".join(distributions)}`'


def use_numpy_1() -> str:
    """Return the command that goes back to numpy 1, with an OpenCV that takes it."""
    found = installed(OTHERS['cv2'])
    newer = [f'{dist}<4.12' for dist, version in found.items() if release(version) >= (4, 12)]
    return f'{_pip("install", "numpy<2", *newer)}.'


def is_for_numpy_1(torch: str) -> bool:
    """Return whether a version of torch is compiled for numpy 1: 2.3 is the first for both."""
    return bool(torch) and release(torch) < (2, 3)


def refused_version(package: str, error: str) -> tuple[str, str, str] | None:
    """Read the error of a package that refuses the version of another.

    Args:
        package (str): The import name of the one that refuses.
        error (str): What its import raised.

    Returns:
        tuple[str, str, str] | None: The import name that is refused, its version, and the remedy:
        the tested version, or where the package takes none such, those that it names.
    """
    match = REFUSED.search(error)
    if match is None:
        return None
    name, version, least, limit = match[1].lower(), match[2], match[3], match[4]
    if name == 'mmcv' and release(limit) < (2,):
        # mmdet 2 and mmcls are for mmcv 1, which has none of what this package works with.
        return name, version, f'{uninstall(*_installed(package))}, then {remedy(package)}'
    pinned = release(PINNED[family_of_openmmlab()][name])
    is_taken = release(least) <= pinned < release(limit)
    command = remedy(name, '' if is_taken else f'>={least},<{limit}')
    found = _installed(name)
    return name, version, f'{uninstall(*found)}, then {command}' if found else command


def _install_torch(family: str) -> str:
    """Return the command for torch and its torchvision, or for the one that a torch asks for."""
    torch = _installed('torch').get('torch')
    if torch:
        # Each torchvision asks for exactly one torch, so that pip finds the one that fits.
        public = f'torch=={torch.partition("+")[0]}'
        return f'{_pip("install", "torchvision", public, *_beside("torch"))}{_index("torch")}.'
    pinned = [f'{name}=={PINNED[family][name]}' for name in ('torch', 'torchvision')]
    command = _pip('install', *pinned, *_beside('torch'))
    if sys.version_info[:2] > LAST_PYTHON[family]:
        last = '.'.join(map(str, LAST_PYTHON[family]))
        return (
            f'an environment of Python {last}, the last that this torch has builds for: {command}.'
        )
    return f'{command}.'


def _from_source(name: str) -> list[str]:
    """Return what pip needs to build OneDL's source archives beside the torch that is there."""
    is_source = name in ('mmdet', 'mmpretrain') and family_of_openmmlab() == 'onedl'
    return ['--no-build-isolation'] if is_source else []


def _index(name: str) -> str:
    """Return where the builds of torch are that have a local version, as 2.1.2+cpu."""
    version = _installed(name).get(name, '')
    return f' with the --index-url that {name} {version} is from' if '+' in version else ''


def _beside(name: str) -> list[str]:
    """Return what keeps pip from taking numpy 2, and an OpenCV that needs it, with a package."""
    torch = _installed('torch').get('torch')
    is_for_1 = is_for_numpy_1(torch) if torch else family_of_openmmlab() == 'original'
    if not is_for_1 or name in ('numpy', 'setuptools'):
        return []
    # mmengine asks for opencv-python, whether or not there is a headless one.
    return ['numpy<2', 'opencv-python<4.12'] if name == 'mmengine' else ['numpy<2']


def _installed(name: str) -> dict[str, str]:
    """Return the versions of the distributions that install an import name."""
    return installed((*FORKS.get(name, ()), *ORIGINALS.get(name, ()), *OTHERS.get(name, ())))


def _requirements(name: str) -> list[str]:
    """Return what is installed as pip is asked for it."""
    return [f'{dist}=={version}' for dist, version in _installed(name).items()] or [name]


def _pip(*words: str) -> str:
    """Return a command of pip between backticks, with quotes where a shell needs them."""
    return f'`pip {" ".join(map(shlex.quote, words))}`'
