# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import contextlib
import importlib
import io
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

REGISTERING = ('hooks', 'optim', 'datasets', 'models')


def register_all() -> None:
    """Import every subpackage that adds something to a registry, and guard mmengine's loading.

    Without mmengine there is no registry: nothing is imported, and the pure torch parts
    (``mmdet_adasap.sharpness``, ``mmdet_adasap.pruning``) remain usable.
    """
    if find_spec('mmengine') is None:
        return
    for name in REGISTERING:
        importlib.import_module(f'mmdet_adasap.{name}')
    importlib.import_module('mmdet_adasap.guard').guard()


@cache
def mmdet_works() -> bool:
    """Whether mmdet is installed and can be imported.

    What needs mmdet asks here first, so that the package serves mmpretrain alone as well. An
    mmdet that is installed and broken (mostly by an mmcv without its compiled operators) is
    warned about once.

    Returns:
        bool: False where mmdet is missing or its import fails.
    """
    return _works('mmdet', ('mmdet.models', 'mmdet.datasets'), 'detection')


@cache
def mmpretrain_works() -> bool:
    """Whether mmpretrain is installed and can be imported, as :func:`mmdet_works` for mmdet."""
    return _works('mmpretrain', ('mmpretrain.datasets',), 'classification')


def _works(package: str, modules: Sequence[str], parts: str) -> bool:
    if find_spec(package) is None:
        return False
    try:
        # They say on the screen what they can do without.
        with contextlib.redirect_stdout(io.StringIO()):
            for module in modules:
                importlib.import_module(module)
    except Exception as error:  # a broken binary raises OSError, a version check AssertionError
        warnings.warn(
            f'{package} is installed but cannot be imported ({type(error).__name__}: {error}), so '
            f'mmdet_adasap does without its {parts} parts. '
            '`python -m mmdet_adasap.env` says what is wrong and what helps.',
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True
