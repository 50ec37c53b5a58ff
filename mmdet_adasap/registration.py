# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Register what the package brings, each part when the library that it is for is imported.

``import mmdet_adasap`` therefore loads nothing of OpenMMLab, nor needs any of it, and a config of
mmpretrain does not load mmdet, or the reverse. mmdet's and mmpretrain's registries import their
library before they look a type up (``mmdet.datasets`` for DATASETS), so the parts are there in
time. mmengine's own registries do not: what stands there comes with mmengine's Runner. Without a
Runner, import the part itself, as ``mmdet_adasap.optim``.
"""

import sys
import threading
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PARTS: dict[str, tuple[str, ...]] = {
    'mmengine.runner': (
        'mmdet_adasap.optim',
        'mmdet_adasap.hooks',
        'mmdet_adasap.hooks.slim_model_hook:add_to_every_runner',
        'mmdet_adasap.checkpoint.guard:guard',
        # What mmdet and mmpretrain have in common is there with mmengine alone, too.
        'mmcv.transforms',
        'mmcv.cnn',
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
"""Modules of other libraries to what is imported, or called as ``module:function``, after them.

A library among the latter that is half imported is left alone: its own entry comes at its end."""


def register_all() -> None:
    """Register all parts whose library is imported, and the others as soon as theirs is.

    A library that is in the midst of its import is left out; call this again afterwards.
    """
    finder = next((f for f in sys.meta_path if isinstance(f, _RegisteringFinder)), None)
    if finder is None:
        finder = _RegisteringFinder()
        sys.meta_path.insert(0, finder)
    finder.due.extend(filter(_is_imported, PARTS))
    finder.register()


def _is_imported(name: str) -> bool:
    module = sys.modules.get(name)
    # importlib notes there whether a module is still being executed.
    return module is not None and not getattr(module.__spec__, '_initializing', False)


class _RegisteringFinder(MetaPathFinder):
    """Finds what the finders behind it find, and gets to know when it has been imported."""

    def __init__(self) -> None:
        self.due: list[str] = []  # libraries that are imported, and their parts are not
        self.own_imports: list[str] = []  # modules of this package that any thread is importing
        self._lock = threading.Lock()

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Find a library, or a module of this package, with a loader that reports its import."""
        # Nothing may be imported in here: Python holds its import lock, and a thread that waits
        # for it may hold the lock of the very module that would be imported.
        if name not in PARTS and not name.startswith(f'{__package__}.'):
            return None
        # Those in front have found nothing. Python 3.10 may have finders without the method.
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else []
        specs = (f.find_spec(name, path, target) for f in behind if hasattr(f, 'find_spec'))
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and hasattr(spec.loader, 'exec_module'):
            spec.loader = _ReportingLoader(spec.loader, self)
        return spec

    def register(self) -> None:
        """Register what is due, unless a module of this package is half imported.

        A part may need names that this module does not have yet; its end calls this again.
        """
        while True:
            with self._lock:
                if not self.due or self.own_imports:
                    return
                library = self.due.pop(0)
            try:
                for module, _, function in (part.partition(':') for part in PARTS[library]):
                    imported = import_module(module)
                    if function:
                        getattr(imported, function)()
            except BaseException:
                if _is_imported(library):  # if not, its import fails with this, and may come again
                    self.due.append(library)
                raise


class _ReportingLoader:
    """Loads with another loader, which may serve more modules than this, and tells the finder."""

    def __init__(self, loader: Loader, finder: _RegisteringFinder) -> None:
        self._loader, self._finder = loader, finder

    def __getattr__(self, name: str) -> object:
        if name == '_loader':  # of a copy that has not got it yet
            raise AttributeError(name)
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute a module, which then looks as if this loader had not been there."""
        name, finder = module.__spec__.name, self._finder
        module.__loader__ = module.__spec__.loader = self._loader
        if name in PARTS:
            self._loader.exec_module(module)
            finder.due.append(name)
            return finder.register()
        finder.own_imports.append(name)
        try:
            self._loader.exec_module(module)
        finally:
            finder.own_imports.remove(name)
            finder.register()
