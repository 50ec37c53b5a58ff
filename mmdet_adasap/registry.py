# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

import inspect
from typing import Any

from mmengine.registry import Registry

from .pruning import Importance, MagnitudeImportance, TaylorImportance
from .sharpness import AdaptivePerturbation, Perturbation, UniformPerturbation

PERTURBATIONS = Registry('perturbation', scope='mmdet_adasap')
IMPORTANCES = Registry('importance', scope='mmdet_adasap')

PERTURBATIONS.register_module(module=AdaptivePerturbation)
PERTURBATIONS.register_module(module=UniformPerturbation)
IMPORTANCES.register_module(module=MagnitudeImportance)
IMPORTANCES.register_module(module=TaylorImportance)

BASES = {PERTURBATIONS.name: Perturbation, IMPORTANCES.name: Importance}


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
    known = ', '.join(repr(name) for name in sorted(registry.module_dict))
    base = BASES[registry.name]
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
