# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Registries of perturbations and criteria, and how a config's words become objects of them.

The modules in ``locations`` are imported when a registry is first used, so who takes a
perturbation does not load the code that finds channels.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from mmengine.registry import Registry

from .errors import SettingError, did_you_mean


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


def check_arguments(
    owner: str,
    function: Callable,
    args: tuple,
    kwargs: Mapping[str, Any],
    examples: Mapping[str, str] | None = None,
    also: Collection[str] = (),
) -> None:
    """Raise SettingError if a function would not take the arguments that a config gives it.

    Python's own message names no other key that may have been meant, and where mmengine builds
    an object, nor whose argument it is.

    Args:
        owner (str): Whose settings they are, with which the message begins.
        function (Callable): What will be called, a function or a class.
        args (tuple): The arguments without a name.
        kwargs (Mapping): The others.
        examples (Mapping[str, str], optional): By argument, what to write where it is missing.
        also (Collection[str]): Keys that mmengine takes out of the config before, which a typo
            may stand for.

    Raises:
        SettingError: Naming what is unexpected or missing, and what the function takes.
    """
    named = _named(function)
    takes = ', '.join(dict.fromkeys([*named, *also]))
    free = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
    unexpected = [key for key in kwargs if key not in named and not free]
    if '_delete_' in unexpected:
        raise SettingError(
            f"{owner}: unexpected '_delete_', which mmengine takes out only where a base config "
            f'has the same key; leave it out'
        )
    if unexpected:
        raise unexpected_key(owner, unexpected[0], [*named, *also])
    try:
        given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        raise SettingError(f'{owner}: {error}; it takes {takes}') from error
    for key, parameter in named.items():
        if key not in given and parameter.default is parameter.empty:
            hint = (examples or {}).get(key, f'it takes {takes}')
            raise SettingError(f'{owner}: {key!r} is missing; {hint}')


def unexpected_key(owner: str, key: str, known: Collection[str]) -> SettingError:
    """Return the error for a key that nothing takes, with what may have been meant.

    Args:
        owner (str): Whose settings they are, with which the message begins.
        key (str): What was written.
        known (Collection[str]): What it takes, in the order of the message.
    """
    hint = did_you_mean(key, known) or f'; it takes {", ".join(dict.fromkeys(known))}'
    return SettingError(f'{owner}: unexpected {key!r}{hint}')


def checks_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Let an ``__init__`` refuse wrong keys of a config as :func:`check_arguments` does."""

    @functools.wraps(init)
    def checked(self: object, *args, **kwargs) -> None:
        # A bound method's signature is without self, which is no key of a config.
        check_arguments(type(self).__name__, init.__get__(self), args, kwargs)
        init(self, *args, **kwargs)

    return checked


def check_integer(
    key: str, value: object, least: int, or_none: bool = False, hint_for_float: str = ''
) -> None:
    """Raise ValueError if a setting is no integer, or below the least that makes sense.

    Args:
        key (str): Its name, with which the message begins.
        value (object): What the user wrote.
        least (int): The smallest number that is allowed.
        or_none (bool): Whether None is allowed, too. Defaults to False.
        hint_for_float (str): What to write instead of a number with a point.
    """
    if value is None and or_none:
        return
    # True is an integer of Python and would count as 1.
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return
    hint = ''
    if isinstance(value, str) and value.isdecimal():
        hint = f'; write {key.rpartition(".")[2]}={value}, without quotes'
    elif isinstance(value, float) and hint_for_float:
        hint = f'; {hint_for_float}'
    none = ', or None' if or_none else ''
    raise ValueError(f'{key}={value!r} must be an integer of at least {least}{none}{hint}')


def _named(function: Callable) -> dict[str, inspect.Parameter]:
    """Return the arguments of a function that can be given by name."""
    parameters = inspect.signature(function).parameters.items()
    return {key: p for key, p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


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
    # Imported here, since pruning would load the tracer where only a perturbation is built.
    base = getattr(import_module(BASES[registry.name][0]), BASES[registry.name][1])
    if isinstance(cfg, base):
        return cfg
    if not isinstance(cfg, dict):
        raise ValueError(_not_a_dict(registry, cfg, key))

    arguments = dict(cfg)
    if 'type' not in arguments:
        raise ValueError(f'{key}.type is missing in {arguments}; {_choices(registry)}')
    type_ = arguments.pop('type')
    if isinstance(type_, str):
        cls = registry.module_dict.get(type_.removeprefix(f'{registry.scope}.'))
    else:
        cls = type_
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ValueError(_unknown_type(registry, type_, key))
    # Before the call, so that a TypeError from inside the class is not taken for a wrong argument.
    check_arguments(f'{key}: {cls.__name__}', cls, (), arguments)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{key}.{error}') from error


def _choices(registry: Registry) -> str:
    """Return what a type may be, as the end of a message."""
    known = ', '.join(map(repr, names(registry)))
    return (
        f'use one of {known}, or a class of your own that is registered in a module among '
        f'custom_imports'
    )


def _not_a_dict(registry: Registry, cfg: object, key: str) -> str:
    """Return the message for a value that is neither a config nor an instance."""
    known = names(registry)
    # 'taylor' and 'TaylorImportance' are meant alike, and nothing else in a config is so short.
    near = [name for name in known if isinstance(cfg, str) and _is_short_for(cfg, name)]
    write = f'dict(type={near[0]!r})' if near else 'dict(type=...)'
    choices = '' if near else f', the type one of {", ".join(map(repr, known))}'
    shown = repr(cfg) if isinstance(cfg, str | int | float | list | tuple) else type(cfg).__name__
    return f'{key}={shown} is neither a dict nor None; write {key}={write}{choices}'


def _is_short_for(word: str, name: str) -> bool:
    """Return whether a word is the name of a type, or the beginning that says which one."""
    return bool(word) and name.lower().startswith(word.lower())


def _unknown_type(registry: Registry, type_: object, key: str) -> str:
    """Return the message for a type that the registry does not have."""
    message = f'{key}.type={type_!r} is unknown; {_choices(registry)}'
    name = type_.removeprefix(f'{registry.scope}.') if isinstance(type_, str) else None
    for other in (PERTURBATIONS, IMPORTANCES):
        if name in other.module_dict or type_ in other.module_dict.values():
            message += f'; {name or type_.__name__} is of the kind {other.name}'
    return message
