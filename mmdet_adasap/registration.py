# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Register what the package brings, each part when the library that it is for is imported.

``import mmdet_adasap`` therefore loads nothing of OpenMMLab, and a config of mmpretrain does not
load mmdet, or the reverse. mmengine looks a type up only after it has imported the library of the
scope (``mmdet.datasets`` for mmdet's DATASETS), so the parts are there in time.
"""

import sys
from collections.abc import Callable, Sequence
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


def register_all() -> None:
    """Register all parts whose library is imported, and the others as soon as theirs is.

    Without mmengine there is no registry: nothing happens, and the pure torch parts
    (``mmdet_adasap.sharpness``, ``mmdet_adasap.pruning``) and ``robustness.corruptions`` remain
    usable.
    """
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport(PARTS, _register))
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
    spec = getattr(sys.modules[name], '__spec__', None)
    return getattr(spec, '_initializing', False)


class _AfterImport(MetaPathFinder):
    """Call a function after each import of certain modules.

    Args:
        names (Sequence[str]): The modules.
        call (Callable): Gets the name of the module.
    """

    def __init__(self, names: Sequence[str], call: Callable[[str], None]) -> None:
        self.names = frozenset(names)
        self.call = call

    def find_spec(
        self, name: str, path=None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as the other finders do, and have its loader call the function."""
        if name not in self.names:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, 'find_spec', None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                break
        else:
            return None
        loader = spec.loader
        execute = getattr(loader, 'exec_module', None)
        if execute is not None:

            def execute_and_call(module: ModuleType) -> None:
                execute(module)
                # importlib marks the module as whole only later; ours may import it meanwhile.
                self.call(name)

            loader.exec_module = execute_and_call
        return spec
