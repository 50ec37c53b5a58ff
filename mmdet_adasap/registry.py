# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Registries of perturbations and criteria, and how a config's words become objects of them.

The modules in ``locations`` are imported when a registry is first used, so who takes a
perturbation does not load the code that finds channels.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from mmengine.registry import Registry


class _LazyRegistry(Registry):
    """Knows the package's own types before a user's is added, or all are listed."""

    @property
    def module_dict(self) -> dict[str, type]:
        self.import_from_location()
        return super().module_dict

    def register_module(self, *args, **kwargs) -> Any:
        # A name that the package has taken is then refused, or replaced with force=True.
        self.import_from_location()
        return super().register_module(*args, **kwargs)


PERTURBATIONS = _LazyRegistry(
    'perturbation', scope='mmdet_adasap', locations=['mmdet_adasap.registered.perturbations']
)
IMPORTANCES = _LazyRegistry(
    'importance', scope='mmdet_adasap', locations=['mmdet_adasap.registered.importances']
)

BASES = {
    PERTURBATIONS.name: ('mmdet_adasap.sharpness', 'Perturbation'),
    IMPORTANCES.name: ('mmdet_adasap.pruning', 'Importance'),
}
"""Module and name of the class that all types of a registry derive from."""


def names(registry: Registry) -> list[str]:
    """Return the names that a config can use, in alphabetical order."""
    return sorted(registry.module_dict)


def build(registry: Registry, cfg: dict | object | None, key: str) -> Any:
    """Build an object from what the user wrote under a key of the config.

    ``Registry.build`` would do, but warns under ``default_scope='mmdet'``, and its errors do
    not say which key of the config is meant.

    Args:
        registry (Registry): Where the types are registered.
        cfg (dict | object | None): ``dict(type=..., **arguments)``, where the type is a class
            or its registered name, with or without the registry's scope; or an instance, or
            None, which are returned as they are.
        key (str): The key, for the messages: 'perturbation', 'finetune', ...

    Returns:
        Any: The instance, or None.

    Raises:
        ValueError: If ``cfg`` is neither of these, the type is missing, unknown or of another
            kind, an argument is unexpected or missing, or the class refuses a value. A class is
            expected to begin that message with the argument's name, so that it reads
            ``key.argument``.
    """
    if cfg is None:
        return None
    known = ', '.join(map(repr, names(registry)))
    # Imported here, since pruning would load the tracer where only a perturbation is built.
    base = getattr(import_module(BASES[registry.name][0]), BASES[registry.name][1])
    if isinstance(cfg, base):
        return cfg
    if not isinstance(cfg, dict):
        raise ValueError(
            f'{key}={cfg!r} is neither a dict nor None; write {key}=dict(type=...), the type '
            f'one of {known}'
        )

    arguments = dict(cfg)
    if 'type' not in arguments:
        raise ValueError(f'{key}.type is missing in {arguments}; use one of {known}')
    type_ = arguments.pop('type')
    if isinstance(type_, str):
        cls = registry.module_dict.get(type_.removeprefix(f'{registry.scope}.'))
    else:
        cls = type_
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ValueError(f'{key}.type={type_!r} is unknown; use one of {known}')
    # Before the call, so that a TypeError from inside the class is not taken for a wrong argument.
    signature = inspect.signature(cls)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(
            f'{key}: {cls.__name__}: {error}; it takes {", ".join(signature.parameters)}'
        ) from error
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{key}.{error}') from error
