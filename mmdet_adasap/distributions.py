# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Distributions of the packages that this one works with: their names, versions and folders.

Importing this needs none of them: :mod:`mmdet_adasap.env` works where they are missing or broken.
"""

import contextlib
import re
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .version import __version__

# Distributions by import name, each after what it needs. The two families share the import
# names, and so their folders.
FORKS = {
    'mmengine': ('onedl-mmengine',),
    'mmcv': ('onedl-mmcv',),
    'mmdet': ('onedl-mmdetection',),
    'mmpretrain': ('onedl-mmpretrain',),
}
ORIGINALS = {
    'mmengine': ('mmengine', 'mmengine-lite'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full'),
    'mmdet': ('mmdet',),
    'mmpretrain': ('mmpretrain',),
}
OTHERS = {
    'numpy': ('numpy',),
    'torch': ('torch',),
    'torchvision': ('torchvision',),
    'cv2': (
        'opencv-python-headless',
        'opencv-python',
        'opencv-contrib-python-headless',
        'opencv-contrib-python',
    ),
}
IMAGECORRUPTIONS = ('imagecorruptions-imaug', 'imagecorruptions')


def installed(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those distributions that are installed.

    Args:
        distributions (Iterable[str]): Names of distributions.

    Returns:
        dict[str, str]: Versions by name, in the order given.
    """
    versions = {}
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def installed_by_name() -> dict[str, dict[str, str]]:
    """Return the versions of all distributions of FORKS, ORIGINALS and OTHERS that are installed.

    Returns:
        dict[str, dict[str, str]]: By import name, then by distribution. An import name of which
        nothing is installed has an empty one.
    """
    names = {**OTHERS, **{name: (*FORKS[name], *ORIGINALS[name]) for name in FORKS}}
    return {name: installed(distributions) for name, distributions in names.items()}


def family_of(found: dict[str, dict[str, str]]) -> str:
    """Decide which family a user has, by counting.

    Args:
        found (dict[str, dict[str, str]]): As ``installed_by_name`` returns it.

    Returns:
        str: ``'original'`` or ``'onedl'``, whichever provides more of the import names mmengine,
        mmcv, mmdet and mmpretrain. If both provide as many, the family of mmdet decides, or else
        that of mmpretrain. Where nothing is installed it is ``'onedl'``, the default.
    """
    names = {
        'original': [name for name, some in ORIGINALS.items() if set(some) & found[name].keys()],
        'onedl': [name for name, some in FORKS.items() if set(some) & found[name].keys()],
    }

    def rank(family: str) -> tuple[int, bool, bool, bool]:
        own = names[family]
        return len(own), 'mmdet' in own, 'mmpretrain' in own, family == 'onedl'

    return max(names, key=rank)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to compare it with others.

    Args:
        version (str): As ``2.1.2+cpu`` or ``2.0.0rc4``.

    Returns:
        tuple[int, ...]: As (2, 1, 2) or (2, 0, 0): without what is no release.
    """
    return tuple(map(int, re.match(r'\d*(?:\.\d+)*', version)[0].split('.'))) if version else ()


def openmmlab_versions() -> dict[str, str]:
    """Return the versions of OpenMMLab's packages, by import name, as results.json has them.

    Returns:
        dict[str, str]: The version of OneDL's package where there is one. Packages that are not
        installed are left out.
    """
    versions = {}
    for name, forks in FORKS.items():
        # Without mmcv-lite and the like of ORIGINALS: no protocol has held them so far, and a run
        # that was stopped could not go on if they appeared in its versions.
        found = installed((*forks, name))
        if found:
            versions[name] = next(iter(found.values()))
    return versions


def pixel_versions() -> dict[str, str]:
    """Return the versions of all packages that the pixels of corrupted images depend on."""
    import cv2
    import numpy as np
    import PIL

    return {
        'mmdet_adasap': __version__,
        'numpy': np.__version__,
        'opencv': cv2.__version__,
        'pillow': PIL.__version__,
    }


def package_folder(name: str) -> Path | None:
    """Return the folder that a package would be imported from, without importing it."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))
