# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The config of an exported model: the user's, without what needs the plugin."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from ..integration import is_mmpretrain_config, library_of, type_name
from ..models import mobilenet_v1
from ..registry import IMPORTANCES, PERTURBATIONS
from ..version import __version__

PACKAGE = __name__.partition('.')[0]
MODULE = 'slim_model_v1'
"""The copied module, version 1. A process imports one of that name only, whichever release wrote
it, so all copies must be interchangeable; a change of what it reads needs a new name."""
FOLDER = '{{ fileDirname }}'
"""mmengine replaces it by the folder of the config when that is read: folders can be moved."""

VISUALIZER = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
"""That of mmdet's default_runtime.py: DetInferencer fails without one."""

BUNDLED = {'MobileNetV1': Path(mobilenet_v1.__file__)}
"""Types of the plugin whose file is copied into the folder, since a slim model needs them."""
PRETRAINED_INITS = ('Pretrained', 'PretrainedInit')
"""The ``init_cfg`` that loads a file: by its name in mmengine's registry, and by its class."""
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
    """Return the text of a config that mmdet or mmpretrain reads without the plugin.

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
    files = _bundled_files(config.model.to_dict())
    exported = _replace_plugin_types(config.to_dict(), '', _plugin_classes(config), changes)
    model = _drop_pretrained(exported['model'])
    exported['model'] = dict(
        model, type='SlimModel', dense=model['type'], structure=f'{FOLDER}/structure.json'
    )
    exported['custom_imports'] = _custom_imports(exported.get('custom_imports'), files)
    exported['load_from'] = f'{FOLDER}/model.pth'
    exported['resume'] = False
    # A config in pure Python has names from here on, which need it.
    if library_of(config):
        exported['default_scope'] = library_of(config)
    # Not that of the run that pruned, and not this folder where it lies in work_dirs: mmengine
    # writes the config that it runs into the work_dir, over the one of that name.
    exported['work_dir'] = f'./work_dirs/{name}_runs'
    if not is_mmpretrain_config(config):
        exported.setdefault('visualizer', VISUALIZER)
    text = Config(exported).pretty_text
    # A folder may have an apostrophe in its name, where pretty_text has put some around it.
    return HEADER + re.sub(f"'({FOLDER}[^']*)'", r'"\1"', text), files, changes


def _bundled_files(value: object) -> list[Path]:
    """Return the files to copy, for all types in a config of a model."""
    if isinstance(value, list | tuple):
        return sorted({file for item in value for file in _bundled_files(item)})
    if not isinstance(value, dict):
        return []
    found = {file for item in value.values() for file in _bundled_files(item)}
    file = BUNDLED.get(type_name(value))
    return sorted(found | ({file} if file else set()))


def _custom_imports(custom_imports: dict | None, files: list[Path]) -> dict:
    """Return ``custom_imports`` without the plugin, and with the copied modules."""
    found = custom_imports or {}
    names = found.get('imports') or []
    names = [names] if isinstance(names, str) else names
    others = [name for name in names if name.partition('.')[0] != PACKAGE]
    return dict(
        found, imports=[*others, *(f.stem for f in files), MODULE], allow_failed_imports=False
    )


def _plugin_classes(config: Config) -> dict[str, type]:
    """Return every class that the plugin registers, by name."""
    scope = library_of(config)
    if scope in ('mmdet', 'mmpretrain'):
        # registration.py registers data sets of the plugin when this is imported.
        import_module(f'{scope}.datasets')
    # Lazy registries: empty until something is built or this is called.
    return {
        name: cls
        for registry in (*_registries(), PERTURBATIONS, IMPORTANCES)
        for name, cls in registry.module_dict.items()
        if cls.__module__.partition('.')[0] == PACKAGE
    }


def _registries() -> list[Registry]:
    """Return mmengine's registries and those that mmdet and mmpretrain derive from them."""
    roots = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    return [*roots, *(child for root in roots for child in root.children.values())]


_DROPPED = object()


def _replace_plugin_types(
    value: object, key: str, own: dict[str, type], changes: list[str]
) -> object:
    """Replace types of the plugin by what they derive from, and drop those without a base.

    Args:
        value (object): A part of a config.
        key (str): Where it is, for messages.
        own (dict[str, type]): Classes of the plugin by name.
        changes (list[str]): Gets a line for each type that was replaced or dropped.
    """
    if isinstance(value, dict):
        value = _replace_type(value, key, own, changes)
        if value is _DROPPED:
            return _DROPPED
        parts = {
            k: _replace_plugin_types(v, f'{key}.{k}' if key else str(k), own, changes)
            for k, v in value.items()
        }
        return {k: v for k, v in parts.items() if v is not _DROPPED}
    if isinstance(value, list | tuple):
        parts = [
            _replace_plugin_types(v, f'{key}[{i}]', own, changes) for i, v in enumerate(value)
        ]
        return type(value)(v for v in parts if v is not _DROPPED)
    return value


def _replace_type(value: dict, key: str, own: dict[str, type], changes: list[str]) -> object:
    """Replace the type of one dict of a config, and drop arguments that its base lacks."""
    kind = value.get('type')
    cls = own.get(kind.rpartition('.')[2]) if isinstance(kind, str) else None
    if cls is None or type_name(value) in BUNDLED:
        return value
    base = _registered_base(cls)
    if base is None:
        changes.append(f'{key}: without {cls.__name__}')
        return _DROPPED
    # Arguments that the plugin's class adds, and its base does not know.
    dropped = set().union(*map(_parameter_names, cls.__mro__))
    dropped -= set().union(*map(_parameter_names, base.__mro__))
    lost = ', '.join(f'{k}={v!r}' for k, v in value.items() if k in dropped)
    changes.append(
        f'{key}: {base.__name__} instead of {cls.__name__}' + (f', without {lost}' if lost else '')
    )
    return {k: v for k, v in value.items() if k not in dropped} | {'type': base.__name__}


def _registered_base(cls: type) -> type | None:
    """Return the nearest base class that a config can name without the plugin."""
    for base in cls.__mro__[1:]:
        ours = base.__module__.partition('.')[0] == PACKAGE
        if not ours and any(base in r.module_dict.values() for r in _registries()):
            return base
    return None


def _parameter_names(cls: type) -> set[str]:
    """Return the names of the arguments that a class itself adds."""
    if '__init__' not in vars(cls):
        return set()
    named = inspect.signature(cls.__init__).parameters.values()
    return {p.name for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _drop_pretrained(value: object) -> object:
    """Drop files of pretrained weights, which have the dense shape."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != 'pretrained' and not _is_pretrained(k, v)}
        return {k: _drop_pretrained(v) for k, v in kept.items()}
    if isinstance(value, list | tuple):
        return type(value)(_drop_pretrained(v) for v in value)
    return value


def _is_pretrained(key: str, value: object) -> bool:
    """Return whether an ``init_cfg`` loads a file."""
    if key != 'init_cfg':
        return False
    found = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(v, dict) and type_name(v) in PRETRAINED_INITS for v in found)
