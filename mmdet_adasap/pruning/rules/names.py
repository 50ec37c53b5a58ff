# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Check the names that rules are registered for: a rule for a wrong one would never run."""

import difflib
import importlib.util
import sys
from collections.abc import Iterable

import torch


def as_names(values: tuple, decorator: str, example: str) -> list[str]:
    """Return what a decorator was given, if these are names.

    Args:
        values (tuple): Its arguments.
        decorator (str): Its name, for the message.
        example (str): A name that it takes, for the message.

    Raises:
        ValueError: If there is no argument, or one is no text.
    """
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError(
            f'@{decorator} takes one or more names as text; write @{decorator}({example!r})'
        )
    return list(values)


def check_operator(name: str) -> None:
    """Raise ValueError if PyTorch has no operator of a name.

    Args:
        name (str): ``'namespace::operation'``.

    Raises:
        ValueError: If there is none, and no package that is not loaded yet could bring it.
    """
    namespace, _, operation = name.partition('::')
    base, _, overload = operation.partition('.')
    # PyTorch has no public list of its operators; this one is in all releases from 2.1 on.
    known = {op.partition('.')[0] for op in torch._C._dispatch_get_all_op_names()}
    if name in known:
        return
    if overload and f'{namespace}::{base}' in known:
        raise ValueError(
            f'rule({name!r}): {overload!r} is an overload, and a rule is for all of them; write '
            f"'{namespace}::{base}'"
        )
    if any(op.startswith(f'{namespace}::') for op in known):
        raise ValueError(f'rule({name!r}): PyTorch has no such operator{_suggest(name, known)}')
    if not _may_load_later(namespace):
        raise ValueError(
            f'rule({name!r}): no operator has the namespace {namespace!r}; load the library that '
            f'defines it first, or correct the name{_suggest(name, known)}'
        )


def _may_load_later(namespace: str) -> bool:
    """Return whether a package has the name of a namespace.

    The operators of torchvision and others come with the import of a module of it.
    """
    if not namespace.isidentifier() or namespace in {
        'torch',
        '__main__',
        *sys.stdlib_module_names,
    }:
        return False
    return namespace in sys.modules or importlib.util.find_spec(namespace) is not None


def check_extension(name: str) -> None:
    """Raise ValueError if mmcv's compiled extension is loaded and has no function of a name."""
    extension = sys.modules.get('mmcv._ext')
    if extension is not None and not callable(getattr(extension, name, None)):
        raise ValueError(
            f'extension_rule({name!r}): mmcv._ext has no such function'
            f'{_suggest(name, vars(extension))}'
        )


def _suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the known name that is most like one, if there is any.

    Not errors.did_you_mean, to which relu_ is relu.
    """
    close = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean {close[0]!r}?' if close else ''
