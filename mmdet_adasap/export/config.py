# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The config of an exported model: the user's own, with nothing in it that needs the plugin."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from ..integration.configs import is_mmpretrain_config
from ..models import mobilenet_v1
from ..registry import IMPORTANCES, PERTURBATIONS
from ..version import __version__

PACKAGE = __name__.partition('.')[0]
MODULE = 'slim_model_v1'
"""Of what is read as version 1, whatever plugin wrote it: one process imports it but once."""
FOLDER = '{{ fileDirname }}'
"""mmengine puts the config's own folder there, wherever that is when the config is read."""

VISUALIZER = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
"""That of mmdet's default_runtime.py: DetInferencer fails without one."""

CARRIED = {'MobileNetV1': Path(mobilenet_v1.__file__)}
"""Modules of models that an export takes along, by their name in a config."""
HEADER = f"""\
# A model that was pruned with mmdet_adasap {__version__}, which is not needed any more.
#
# {MODULE}.py, beside this file, cuts the dense model to the shape in structure.json. The
# folder can be moved as a whole. In a copy that train.py dumps into its work_dir the paths are
# those of this folder; read such a copy with this folder on the PYTHONPATH, or use this file.
import sys

sys.path.append("{FOLDER}")

"""


def exported_config(config: Config, name: str) -> tuple[str, list[Path], list[str]]:
    """The text of a config that mmdet or mmpretrain reads without the plugin.

    Training goes on from the slim weights, with the schedule as it was.

    Args:
        config (Config): The unpruned config.
        name (str): Of the folder under work_dirs that training goes on in.

    Returns:
        tuple[str, list[Path], list[str]]: The text, the modules that it imports and that have to
        be beside it, apart from :data:`MODULE`, and a line for everything that was replaced or
        left out.
    """
    changes: list[str] = []
    files = _carried(config.model.to_dict())
    exported = _without_plugin(config.to_dict(), '', _own_classes(config), changes)
    model = _without_pretrained(exported['model'])
    exported['model'] = dict(
        model, type='SlimModel', dense=model['type'], structure=f'{FOLDER}/structure.json'
    )
    exported['custom_imports'] = _imports(exported.get('custom_imports'), files)
    exported['load_from'] = f'{FOLDER}/model.pth'
    exported['resume'] = False
    exported['work_dir'] = f'./work_dirs/{name}'  # not that of the run that pruned
    if not is_mmpretrain_config(config):
        exported.setdefault('visualizer', VISUALIZER)
    text = Config(exported).pretty_text
    # A folder may have an apostrophe in its name, where pretty_text has put some around it.
    return HEADER + re.sub(f"'({FOLDER}[^']*)'", r'"\1"', text), files, changes


def _carried(value: object) -> list[Path]:
    """Files of this package that define modules of a model and need nothing else of it."""
    if isinstance(value, list | tuple):
        return sorted({file for item in value for file in _carried(item)})
    if not isinstance(value, dict):
        return []
    found = {file for item in value.values() for file in _carried(item)}
    file = CARRIED.get(value.get('type'))
    return sorted(found | ({file} if file else set()))


def _imports(custom_imports: dict | None, files: list[Path]) -> dict:
    found = custom_imports or {}
    names = found.get('imports') or []
    names = [names] if isinstance(names, str) else names
    others = [name for name in names if name.partition('.')[0] != PACKAGE]
    return dict(
        found, imports=[*others, *(f.stem for f in files), MODULE], allow_failed_imports=False
    )


def _own_classes(config: Config) -> dict[str, type]:
    """Everything that the plugin registers, by name."""
    scope = config.get('default_scope')
    if scope in ('mmdet', 'mmpretrain'):
        import_module(f'{scope}.datasets')  # after which our data sets are registered
    for registry in (PERTURBATIONS, IMPORTANCES):
        registry.import_from_location()
    return {
        name: cls
        for registry in (*_registries(), PERTURBATIONS, IMPORTANCES)
        for name, cls in registry.module_dict.items()
        if cls.__module__.partition('.')[0] == PACKAGE
    }


def _registries() -> list[Registry]:
    roots = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    return [*roots, *(child for root in roots for child in root.children.values())]


_NOTHING = object()


def _without_plugin(value: object, key: str, own: dict[str, type], changes: list[str]) -> object:
    """Replace types of the plugin by what they derive from, and leave out those without one."""
    if isinstance(value, dict):
        value = _replaced(value, key, own, changes)
        if value is _NOTHING:
            return _NOTHING
        parts = {
            k: _without_plugin(v, f'{key}.{k}' if key else str(k), own, changes)
            for k, v in value.items()
        }
        return {k: v for k, v in parts.items() if v is not _NOTHING}
    if isinstance(value, list | tuple):
        parts = [_without_plugin(v, f'{key}[{i}]', own, changes) for i, v in enumerate(value)]
        return type(value)(v for v in parts if v is not _NOTHING)
    return value


def _replaced(value: dict, key: str, own: dict[str, type], changes: list[str]) -> object:
    kind = value.get('type')
    cls = own.get(kind.rpartition('.')[2]) if isinstance(kind, str) else None
    if cls is None or kind in CARRIED:
        return value
    base = _registered_base(cls)
    if base is None:
        changes.append(f'{key}: without {cls.__name__}')
        return _NOTHING
    dropped = set().union(*map(_arguments, cls.__mro__))
    dropped -= set().union(*map(_arguments, base.__mro__))
    lost = ', '.join(f'{k}={v!r}' for k, v in value.items() if k in dropped)
    changes.append(
        f'{key}: {base.__name__} instead of {cls.__name__}' + (f', without {lost}' if lost else '')
    )
    return {k: v for k, v in value.items() if k not in dropped} | {'type': base.__name__}


def _registered_base(cls: type) -> type | None:
    """The nearest class that it derives from and a config of mmdet can name."""
    for base in cls.__mro__[1:]:
        ours = base.__module__.partition('.')[0] == PACKAGE
        if not ours and any(base in r.module_dict.values() for r in _registries()):
            return base
    return None


def _arguments(cls: type) -> set[str]:
    if '__init__' not in vars(cls):
        return set()
    named = inspect.signature(cls.__init__).parameters.values()
    return {p.name for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _without_pretrained(value: object) -> object:
    """Without files of pretrained weights, which have the dense shape."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != 'pretrained' and not _is_pretrained(k, v)}
        return {k: _without_pretrained(v) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_pretrained(v) for v in value)
    return value


def _is_pretrained(key: str, value: object) -> bool:
    if key != 'init_cfg':
        return False
    found = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(v, dict) and v.get('type') == 'Pretrained' for v in found)
