# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Register what the package brings, each part when the library that it is for is imported.

``import mmdet_adasap`` therefore loads nothing of OpenMMLab, and a config of mmpretrain does not
load mmdet, or the reverse. mmengine looks a type up only after it has imported the library of the
scope (``mmdet.datasets`` for mmdet's DATASETS), so the parts are there in time.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PARTS: dict[str, tuple[str, ...]] = {
    'mmengine.runner': (
        'mmdet_adasap.optim',
        'mmdet_adasap.hooks',
        'mmdet_adasap.checkpoint.guard:guard',
    ),
    'mmcv.transforms': ('mmdet_adasap.robustness.datasets.transforms',),
    'mmcv.cnn': ('mmdet_adasap.models.mobilenet_v1',),
    'mmdet.models.dense_heads': ('mmdet_adasap.integration.compat:mend_ssd_head',),
    'mmdet.datasets': ('mmdet_adasap.robustness.datasets.corrupted_voc',),
    'mmpretrain.datasets': (
        'mmdet_adasap.robustness.datasets.cifar10_c',
        'mmdet_adasap.robustness.datasets.imagenet_c',
        'mmdet_adasap.robustness.datasets.imagenet_v2',
    ),
}
"""Modules of other libraries to what is imported, or called as ``module:function``, after them."""


PLAIN = (
    'errors',
    'fileio',
    'version',
    'env',
    'sharpness',
    'pruning',
    'robustness.corruptions',
    'cli',
)
"""What needs nothing of OpenMMLab. mmengine is imported ahead of everything else of the package:
its import in the midst of ours would register parts that are half imported."""


def register_all() -> None:
    """Register all parts whose library is imported, and the others as soon as theirs is.

    Without mmengine there is no registry: nothing happens, and the pure torch parts
    (``mmdet_adasap.sharpness``, ``mmdet_adasap.pruning``) and ``robustness.corruptions`` remain
    usable.
    """
    if not any(isinstance(finder, _LibraryFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LibraryFinder())
    for library in PARTS:
        if library in sys.modules and not _is_being_imported(library):
            _register(library)


def _register(library: str) -> None:
    for part in PARTS[library]:
        module, _, function = part.partition(':')
        imported = import_module(module)
        if function:
            getattr(imported, function)()


def _is_being_imported(name: str) -> bool:
    return getattr(sys.modules[name].__spec__, '_initializing', False)


def _is_plain(name: str) -> bool:
    """Whether a module of the package, or a package in front of it, needs no OpenMMLab."""
    inner = name.removeprefix(f'{__package__}.')
    return any(
        f'{part}.'.startswith(f'{inner}.') or inner.startswith(f'{part}.') for part in PLAIN
    )


class _LibraryFinder(MetaPathFinder):
    """Finds nothing itself; registers the parts for a library when that has been imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a library as the other finders do, and have its loader register its parts."""
        if name.startswith(f'{__package__}.') and not _is_plain(name):
            import_module('mmengine.runner')
        if name not in PARTS:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and hasattr(spec.loader, 'exec_module'):
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(name)

            spec.loader.exec_module = execute_and_register
        return spec
