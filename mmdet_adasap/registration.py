# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import importlib
import warnings
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
    if find_spec('mmdet') is None:
        return False
    try:
        importlib.import_module('mmdet.models')
        importlib.import_module('mmdet.datasets')
    except Exception as error:  # a broken binary raises OSError, a version check AssertionError
        warnings.warn(
            f'mmdet is installed but cannot be imported ({type(error).__name__}: {error}), so '
            'mmdet_adasap does without its detection parts. '
            '`python -m mmdet_adasap.env` says what is wrong and what helps.',
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
