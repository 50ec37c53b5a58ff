# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Write the commands that mend an environment.

They install packages of one family alone, in versions that were tested together. A command is
right when those in front of it have been run. docs/versions.md has the whole recipes.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from importlib import metadata

from ..distributions import FORKS, ORIGINALS, OTHERS, family_of, installed_by_name, release

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
"""Versions that were tested together, by family. They are those of the folder requirements/, which
is not there when this package is installed from a wheel."""

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
"""What else a family needs. torch 2.1 is compiled for numpy 1, and OpenCV's builds from 4.12 on
refuse that. torch 2.1 imports a part of pkg_resources that setuptools lost in its version 70."""

LAST_PYTHON = {'onedl': (3, 12), 'original': (3, 11)}
"""The last Python that there are builds of the pinned torch for."""

REFUSED = re.compile(
    r'(MMCV|MMEngine)==(\S+) is used but incompatible.*?>=([\w.]+), *<=?([\w.]+\w)'
)
"""What mmdet and mmpretrain raise on a version of another package that they do not take."""

MISSING = re.compile(r"No module named '([\w.]+)'")
"""What Python raises on a module that is not there; at most with more text behind it."""

TARGETS = {'onedl': 'make install', 'original': 'make install-original'}

DISTRIBUTIONS = {
    'PIL': 'pillow',
    'dateutil': 'python-dateutil',
    'skimage': 'scikit-image',
    'sklearn': 'scikit-learn',
    'yaml': 'pyyaml',
}
"""Distributions that are not called as the module that they install, by that module. They are
those of what mmengine, mmcv, mmdet and mmpretrain import."""


@dataclass(frozen=True)
class Remedies:
    """The commands for one environment.

    Args:
        family (str): The family that they install packages of, ``'onedl'`` or ``'original'``.
        found (dict[str, dict[str, str]]): Versions of the installed distributions, by import
            name and name, as ``installed_by_name`` returns them.
    """

    family: str
    found: dict[str, dict[str, str]]

    @classmethod
    def of_this_environment(cls) -> 'Remedies':
        """Return the commands for what is installed here."""
        found = installed_by_name()
        return cls(family_of(found), found)

    def install(self, name: str, versions: str = '') -> str:
        """Return the commands that install a package that is missing or was uninstalled.

        Args:
            name (str): Its import name, a key of FORKS or OTHERS; or ``setuptools``.
            versions (str): As ``>=2.0.0,<2.1.0``. Defaults to the tested one.

        Returns:
            str: Commands between backticks, with ``then`` between them, and a full stop.
        """
        if name in ('torch', 'torchvision'):
            return self._install_torch()
        if name in BOUNDS[self.family]:
            return f'{_pip("install", BOUNDS[self.family][name], *self._beside(name))}.'
        distribution = (FORKS if self.family == 'onedl' else ORIGINALS)[name][0]
        requirement = f'{distribution}{versions or "==" + PINNED[self.family][name]}'
        if name == 'mmcv':
            return self._install_mmcv(requirement)
        source = self._from_source(name)
        command = _pip('install', *source, requirement, *self._beside(name))
        return f'{self._build_tools()}, then {command}.' if source else f'{command}.'

    def reinstall(self, name: str) -> str:
        """Return the commands for a package that is installed and cannot be imported."""
        found = self.found[name]
        if found and name in ('mmcv', 'torchvision', 'cv2'):
            # Compiled for other packages, or without a library of the system: the same would fail.
            return f'{uninstall(*found)}, then {self.install(name)}'
        # torch may lack the libraries of CUDA, which are distributions that it asks for.
        options = ['--force-reinstall', *([] if name == 'torch' else ['--no-deps'])]
        options += self._from_source(name)
        return f'{_pip("install", *options, *self._requirements(name))}{self._index(name)}.'

    def complete(self, name: str, module: str) -> str:
        """Return the commands that bring a module that a package imports and does not find.

        Args:
            name (str): The import name of the package.
            module (str): The module, as ``mmcv._ext`` or ``pycocotools``.

        Returns:
            str: Commands that install this module; pip would call the package itself installed
            already, unless it asks for the module's distribution.
        """
        top = module.partition('.')[0]
        if top == 'pkg_resources':
            return self.install('setuptools')
        if top in FORKS or top in OTHERS:
            found = self.found[top]
            if not found:
                return self.install(top)
            # A part is missing: it is another version than the tested one, or broken.
            if top in FORKS and top != name and PINNED[self.family][top] not in found.values():
                return f'{uninstall(*found)}, then {self.install(top)}'
            return self.reinstall(top)
        distribution = DISTRIBUTIONS.get(top, top)
        if _plain(distribution) in self._asked_for(name):
            options = [*self._from_source(name), *self._requirements(name)]
            return f'{_pip("install", *options, *self._beside(name))}.'
        return f'{_pip("install", distribution, *self._beside(distribution))}.'

    def use_numpy_1(self) -> str:
        """Return the command that goes back to numpy 1, with an OpenCV that takes it."""
        found = self.found['cv2']
        newer = [f'{dist}<4.12' for dist, version in found.items() if release(version) >= (4, 12)]
        return f'{_pip("install", "numpy<2", *newer)}.'

    def refused_version(self, package: str, error: str) -> tuple[str, str, str] | None:
        """Read the error of a package that refuses the version of another.

        Args:
            package (str): The import name of the one that refuses.
            error (str): What its import raised.

        Returns:
            tuple[str, str, str] | None: The import name that is refused, its version, and the
            remedy: the tested version, or where the package does not take it, those that it
            names.
        """
        match = REFUSED.search(error)
        if match is None:
            return None
        name, version, least, limit = match[1].lower(), match[2], match[3], match[4]
        if name == 'mmcv' and release(limit) < (2,):
            # mmdet 2 and mmcls are for mmcv 1, which has none of what this package works with.
            replaced = uninstall(*self.found[package])
            return name, version, f'{replaced}, then {self.install(package)}'
        pinned = release(PINNED[self.family][name])
        is_taken = release(least) <= pinned < release(limit)
        command = self.install(name, '' if is_taken else f'>={least},<{limit}')
        found = self.found[name]
        return name, version, f'{uninstall(*found)}, then {command}' if found else command

    def _install_mmcv(self, requirement: str) -> str:
        """Return the commands for mmcv: a wheel where there is one, else compiling."""
        # --no-cache-dir: pip's cache may hold one that was built without torch, or for another.
        options = ('--no-build-isolation', '--no-cache-dir', '--no-deps', requirement)
        build = _command('MMCV_WITH_OPS=1 pip install', *options)
        compiled = (
            f'{self._build_tools()}, then {build}, which compiles for minutes; or '
            f'`{TARGETS[self.family]}` in a checkout of mmdet_adasap, for a new environment.'
        )
        if self.family != 'original':
            return compiled
        # --only-binary: where there is no wheel pip would compile apart from torch, and end with
        # an mmcv without operators.
        options = (requirement, '--only-binary=mmcv', '--no-deps')
        return (
            f'{_pip("install", "openmim")}, then {_command("mim install", *options)}, which takes '
            "OpenMMLab's wheel for the torch and CUDA that are installed. Where it finds none: "
            f'{compiled}'
        )

    def _install_torch(self) -> str:
        """Return the command for torch and its torchvision, or for the one a torch asks for."""
        torch = self.found['torch'].get('torch')
        if torch:
            # Each torchvision asks for exactly one torch, so that pip finds the one that fits.
            public = f'torch=={torch.partition("+")[0]}'
            command = _pip('install', 'torchvision', public, *self._beside('torch'))
            return f'{command}{self._index("torch")}.'
        pinned = [f'{name}=={PINNED[self.family][name]}' for name in ('torch', 'torchvision')]
        command = _pip('install', *pinned, *self._beside('torch'))
        if sys.version_info[:2] > LAST_PYTHON[self.family]:
            last = '.'.join(map(str, LAST_PYTHON[self.family]))
            return (
                f'an environment of Python {last}, the last that this torch has builds for: '
                f'{command}.'
            )
        return f'{command}.'

    def _build_tools(self) -> str:
        """Return the command for what builds mmcv, and OneDL's source archives."""
        return _pip('install', BOUNDS[self.family]['setuptools'], 'wheel', 'ninja', 'packaging')

    def _from_source(self, name: str) -> list[str]:
        """Return what pip needs to build OneDL's source archives beside the torch there is."""
        is_source = name in ('mmdet', 'mmpretrain') and self.family == 'onedl'
        return ['--no-build-isolation'] if is_source else []

    def _index(self, name: str) -> str:
        """Return where the builds of torch are that have a local version, as 2.1.2+cpu."""
        version = self.found[name].get(name, '')
        return f' with the --index-url that {name} {version} is from' if '+' in version else ''

    def _beside(self, name: str) -> list[str]:
        """Return what keeps pip from taking numpy 2, and an OpenCV that needs it."""
        torch = self.found['torch'].get('torch')
        is_for_1 = is_for_numpy_1(torch) if torch else self.family == 'original'
        if not is_for_1 or name in ('numpy', 'setuptools'):
            return []
        # mmengine asks for opencv-python, whether or not there is a headless one.
        return ['numpy<2', 'opencv-python<4.12'] if name == 'mmengine' else ['numpy<2']

    def _requirements(self, name: str) -> list[str]:
        """Return what is installed as pip is asked for it."""
        found = self.found[name]
        return [f'{dist}=={version}' for dist, version in found.items()] or [name]

    def _asked_for(self, name: str) -> set[str]:
        """Return the distributions that an installed package asks pip for, without extras."""
        lines = [
            line for dist in self.found.get(name, ()) for line in metadata.requires(dist) or ()
        ]
        return {_plain(re.match(r'[\w.-]+', line)[0]) for line in lines if 'extra ==' not in line}


def uninstall(*distributions: str) -> str:
    """Return the command that removes distributions."""
    return f'`pip uninstall -y {" ".join(distributions)}`'


def missing_module(error: str) -> str:
    """Return the module that an error says is not there; '' if it says something else."""
    match = MISSING.search(error)
    return match[1] if match else ''


def is_for_numpy_1(torch: str) -> bool:
    """Return whether a version of torch is compiled for numpy 1: 2.3 is the first for both."""
    return bool(torch) and release(torch) < (2, 3)


def _plain(distribution: str) -> str:
    """Return a distribution's name as pip compares it."""
    return re.sub(r'[-_.]+', '-', distribution).lower()


def _pip(*words: str) -> str:
    """Return a command of pip between backticks."""
    return _command('pip', *words)


def _command(program: str, *words: str) -> str:
    """Return a command between backticks, with quotes where a shell needs them."""
    return f'`{program} {" ".join(map(shlex.quote, words))}`'
