# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Make the functions in a copied model refer to the copy.

``copy.deepcopy`` copies no functions. A ``forward`` that was wrapped on one module, as mmengine's
``activation_checkpointing`` does, would run the original module inside the copy.
"""

import copy
import functools
import weakref
from collections import OrderedDict
from types import CellType, FunctionType, MethodType

from torch import nn

CONTAINERS = (list, tuple, dict, OrderedDict, set)
"""Types that are looked into; the constructor of a subclass may take other arguments."""


def rebind_functions(model: nn.Module, memo: dict[int, object]) -> None:
    """Copy the functions among the attributes of a copied model that refer to the original.

    Closures, default values, ``functools.partial``, bound methods, callable objects and weak
    references are looked into, and forward hooks, too. What does not lead to the original model
    stays shared.

    Args:
        model (nn.Module): What ``copy.deepcopy`` returned; changed in place.
        memo (dict): What ``copy.deepcopy`` was given as memo and has filled.
    """
    rebinder = _Rebinder(memo)
    for module in model.modules():
        for name, value in vars(module).items():
            vars(module)[name] = rebinder.rebind(value)


class _Rebinder:
    """Puts copies in the place of originals, in what functions refer to.

    Args:
        memo (dict): Identity of each original to its copy.
    """

    def __init__(self, memo: dict[int, object]) -> None:
        self._memo = memo
        self._copies = {id(value) for value in memo.values()}

    def rebind(self, value: object) -> object:
        """Return the value itself, or what takes its place if it leads to the original model."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if not self._leads_to_original(value, set()):
            return value
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            return MethodType(self.rebind(value.__func__), self.rebind(value.__self__))
        if isinstance(value, functools.partial):
            return self._partial(value)
        if isinstance(value, weakref.ref):
            return type(value)(self.rebind(value()))
        if type(value) in CONTAINERS:
            return self._container(value)
        is_copy = id(value) in self._copies
        made = value if is_copy else copy.deepcopy(value, self._memo)
        if made is value and not is_copy:
            return value  # of a kind that cannot be copied, as the result of functools.cache
        for name, attribute in vars(made).items():
            vars(made)[name] = self.rebind(attribute)
        return made

    def _leads_to_original(self, value: object, seen: set[int]) -> bool:
        if id(value) in self._memo:
            return True
        if id(value) in seen or isinstance(value, nn.Module):
            return False
        seen.add(id(value))
        return any(self._leads_to_original(part, seen) for part in _parts(value))

    def _function(self, function: FunctionType) -> FunctionType:
        cells = tuple(CellType() for _ in function.__closure__ or ())
        made = FunctionType(
            function.__code__, function.__globals__, function.__name__, None, cells or None
        )
        # Known before its parts are, since a function may refer to itself.
        self._memo[id(function)] = made
        functools.update_wrapper(made, function, updated=())
        made.__defaults__ = self.rebind(function.__defaults__)
        made.__kwdefaults__ = self.rebind(function.__kwdefaults__)
        for cell, old in zip(cells, function.__closure__ or (), strict=True):
            for part in _contents(old):
                cell.cell_contents = self.rebind(part)
        del made.__wrapped__  # update_wrapper has set it to the original function
        vars(made).update({name: self.rebind(part) for name, part in vars(function).items()})
        return made

    def _partial(self, partial: functools.partial) -> functools.partial:
        keywords = {name: self.rebind(part) for name, part in partial.keywords.items()}
        made = type(partial)(
            self.rebind(partial.func), *map(self.rebind, partial.args), **keywords
        )
        vars(made).update({name: self.rebind(part) for name, part in vars(partial).items()})
        return made

    def _container(self, value: object) -> object:
        """Return a container of the copied parts; that of a copy itself is filled in place."""
        if isinstance(value, dict):
            parts = {key: self.rebind(part) for key, part in value.items()}
        else:
            parts = [self.rebind(part) for part in value]
        if isinstance(value, tuple) or id(value) not in self._copies:
            return type(value)(parts)
        value.clear()
        value.extend(parts) if isinstance(value, list) else value.update(parts)
        return value


def _parts(value: object) -> list:
    """Return what a function, a callable object or a container refers to."""
    if isinstance(value, FunctionType):
        cells = [part for cell in value.__closure__ or () for part in _contents(cell)]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        return [*cells, *defaults, *vars(value).values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values(), *vars(value).values()]
    if isinstance(value, weakref.ref):
        return [value()]
    if type(value) in CONTAINERS:
        return list(value.values()) if isinstance(value, dict) else list(value)
    if callable(value) and not isinstance(value, type) and hasattr(value, '__dict__'):
        return list(vars(value).values())
    return []


def _contents(cell: CellType) -> list:
    """Return the value of a variable of a closure in a list, which is empty if it has none yet."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []
