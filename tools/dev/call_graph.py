# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Who calls whom in a package, told from names and annotations without running anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from import_graph import Import, Module, Package, run_at_import

DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Class:
    """A class of the package."""

    module: str
    node: ast.ClassDef


@dataclass(frozen=True)
class Function:
    """A function of the package, or a method with the class of its ``self``."""

    module: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    receiver: Class | None = None


@dataclass(frozen=True)
class Instance:
    """What a class of the package gives when it is called."""

    of: Class


@dataclass
class Scope:
    """The names that a function binds, as far as they can be told."""

    module: str
    values: dict[str, object] = field(default_factory=dict)


class CallGraph:
    """The functions that a function leads to, told from names alone.

    A name is followed through imports, also those inside functions, and through the faces of
    folders to where it is defined. A method is followed where the class of its object is known:
    of ``self`` and ``super()``, of an annotated argument or attribute, of what is made by calling
    a class, and of what a function with an annotated result returns. A function that is named
    without being called counts as called, since it is handed to somebody who will. A class counts
    where it is called, and leads to its ``__init__`` and ``__post_init__``.

    Not seen: what is built by a registry, elements of containers, overriding methods behind a
    base class, and calls by operators or decorators. Left out: ``raise`` statements, since no
    data passes there.

    Args:
        package (Package): The package.
    """

    def __init__(self, package: Package) -> None:
        self.package = package
        self._names: dict[str, dict[str, object]] = {}
        self._attributes: dict[tuple[Class, str], Class | None] = {}

    def find(self, qualified: str) -> Function | None:
        """Find a function by its name, or a method by ``Class.method``."""
        first, _, method = qualified.partition('.')
        for module in self.package.modules.values():
            for node in module.tree.body:
                if getattr(node, 'name', None) != first:
                    continue
                if method and isinstance(node, ast.ClassDef):
                    return self._method(Class(module.name, node), method)
                if not method and isinstance(node, DEFINITIONS):
                    return Function(module.name, node)
        return None

    def edges(self, start: Function) -> set[tuple[str, str]]:
        """Return the pairs (module of the caller, module of the callee) from a function on."""
        edges: set[tuple[str, str]] = set()
        seen, to_do = {start}, [start]
        while to_do:
            function = to_do.pop()
            for callee in self._callees(function):
                edges.add((function.module, callee.module))
                follow = [callee] if isinstance(callee, Function) else self._made_by(callee)
                for each in follow:
                    if each not in seen:
                        seen.add(each)
                        to_do.append(each)
        return edges

    def _made_by(self, cls: Class) -> list[Function]:
        methods = (self._method(cls, name) for name in ('__init__', '__post_init__'))
        return [method for method in methods if method is not None]

    def _callees(self, function: Function) -> Iterator[Function | Class]:
        scope = self._scope(function)
        to_do: list[ast.AST] = list(function.node.body)
        while to_do:
            node = to_do.pop()
            if isinstance(node, ast.Raise):
                continue
            if isinstance(node, ast.AnnAssign):  # its annotation is no call
                to_do += [node.target, *([node.value] if node.value else [])]
                continue
            if isinstance(node, DEFINITIONS):
                to_do += node.body
                continue
            if isinstance(node, ast.Call):
                called = self._value(node.func, scope)
                if isinstance(called, Class):
                    yield called
            elif isinstance(node, ast.Name | ast.Attribute):
                value = self._value(node, scope)
                if isinstance(value, Function):
                    yield value
            to_do += ast.iter_child_nodes(node)

    def _scope(self, function: Function) -> Scope:
        node, module = function.node, self.package.modules[function.module]
        scope = Scope(function.module)
        self._bind_imports(module, ast.walk(node), scope.values)
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            scope.values[argument.arg] = self._annotated(argument.annotation, scope)
        if function.receiver is not None and arguments:
            kinds = {d.id for d in node.decorator_list if isinstance(d, ast.Name)}
            if 'classmethod' in kinds:
                scope.values[arguments[0].arg] = function.receiver
            elif 'staticmethod' not in kinds:
                scope.values[arguments[0].arg] = Instance(function.receiver)
            scope.values['super()'] = function.receiver
        for each in ast.walk(node):  # a name that is bound here hides the module's
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                scope.values.setdefault(each.id)
            elif isinstance(each, DEFINITIONS) and each is not node:
                scope.values.setdefault(each.name)
        statements = [n for n in ast.walk(node) if isinstance(n, ast.Assign | ast.AnnAssign)]
        for each in sorted(statements, key=lambda n: n.lineno):
            target = each.targets[0] if isinstance(each, ast.Assign) else each.target
            if isinstance(target, ast.Name):
                scope.values[target.id] = self._assigned(each, scope)
        for each in ast.walk(node):
            if isinstance(each, ast.withitem) and isinstance(each.optional_vars, ast.Name):
                value = self._value(each.context_expr, scope)
                scope.values[each.optional_vars.id] = value
        return scope

    def _assigned(self, node: ast.Assign | ast.AnnAssign, scope: Scope) -> object:
        if isinstance(node, ast.AnnAssign):
            return self._annotated(node.annotation, scope)
        return self._value(node.value, scope)

    def _annotated(self, node: ast.AST | None, scope: Scope) -> Instance | None:
        """Return an instance of the class of ours that an annotation names, if it names one."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node = ast.parse(node.value, mode='eval').body
        if isinstance(node, ast.BinOp):  # X | None
            return self._annotated(node.left, scope) or self._annotated(node.right, scope)
        if isinstance(node, ast.Name | ast.Attribute):
            named = self._value(node, scope)
            return Instance(named) if isinstance(named, Class) else None
        return None

    def _value(self, node: ast.AST, scope: Scope) -> object:
        """Tell what an expression is: a Class, Function, Instance or Module of ours, or None."""
        if isinstance(node, ast.Name):
            if node.id in scope.values:
                return self._followed(scope.values[node.id])
            return self._named(scope.module, node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(self._value(node.value, scope), node.attr)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == 'super':
                receiver = scope.values.get('super()')
                bases = self._bases(receiver) if isinstance(receiver, Class) else []
                return Instance(bases[0]) if bases else None
            return self._result(self._value(node.func, scope))
        if isinstance(node, ast.IfExp):
            return self._value(node.body, scope) or self._value(node.orelse, scope)
        if isinstance(node, ast.BoolOp):
            return next(filter(None, (self._value(v, scope) for v in node.values)), None)
        return None

    def _result(self, called: object) -> Instance | None:
        if isinstance(called, Class):
            return Instance(called)
        if isinstance(called, Function):
            return self._annotated(called.node.returns, Scope(called.module))
        return None

    def _attribute(self, owner: object, name: str) -> object:
        if isinstance(owner, Module):
            return self._named(owner.name, name)
        if isinstance(owner, Function):  # a property, if it has attributes
            owner = self._result(owner)
        if isinstance(owner, Instance):
            return self._method(owner.of, name) or self._attribute_type(owner.of, name)
        if isinstance(owner, Class):
            return self._method(owner, name)
        return None

    def _named(self, module: str, name: str, seen: frozenset = frozenset()) -> object:
        """Tell what a module's name stands for."""
        if module not in self._names:
            tree = self.package.modules[module].tree
            names = self._names[module] = {}
            self._bind_imports(self.package.modules[module], run_at_import(tree), names)
            for node in run_at_import(tree):
                if isinstance(node, ast.ClassDef):
                    names[node.name] = Class(module, node)
            for node in ast.iter_child_nodes(tree):
                if isinstance(node, DEFINITIONS):
                    names[node.name] = Function(module, node)
        value = self._names[module].get(name)
        return None if (module, name) in seen else self._followed(value, seen | {(module, name)})

    def _followed(self, value: object, seen: frozenset = frozenset()) -> object:
        """Follow an import to what it binds, through as many faces as it takes."""
        if not isinstance(value, Import):
            return value
        if value.name is None:
            return self.package.modules[value.target]
        return self._named(value.target, value.name, seen)

    def _bind_imports(self, module: Module, nodes: Iterable[ast.AST], names: dict) -> None:
        for found in self.package.imports(module, nodes):
            names[found.bound] = found

    def _bases(self, cls: Class) -> list[Class]:
        values = (self._value(base, Scope(cls.module)) for base in cls.node.bases)
        return [value for value in values if isinstance(value, Class)]

    def _method(self, cls: Class, name: str) -> Function | None:
        for node in cls.node.body:
            if isinstance(node, DEFINITIONS) and node.name == name:
                return Function(cls.module, node, cls)
        for base in self._bases(cls):
            found = self._method(base, name)
            if found is not None:
                return replace(found, receiver=cls)
        return None

    def _attribute_type(self, cls: Class, name: str) -> Instance | None:
        """Tell an attribute's class from its annotation, or from what ``self.x`` is set to."""
        if (cls, name) in self._attributes:
            return self._attributes[cls, name]
        self._attributes[cls, name] = None  # an attribute that is made of itself ends here
        found = None
        for node in cls.node.body:
            if isinstance(node, ast.AnnAssign) and getattr(node.target, 'id', None) == name:
                found = self._annotated(node.annotation, Scope(cls.module))
            elif isinstance(node, DEFINITIONS) and found is None:
                found = self._set_in(Function(cls.module, node, cls), name)
        for base in self._bases(cls):
            found = found or self._attribute_type(base, name)
        self._attributes[cls, name] = found
        return found

    def _set_in(self, method: Function, name: str) -> Instance | None:
        for node in ast.walk(method.node):
            if not isinstance(node, ast.Assign | ast.AnnAssign):
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Attribute) and target.attr == name:
                owner = target.value
                if isinstance(owner, ast.Name) and owner.id == 'self':
                    value = self._assigned(node, self._scope(method))
                    if isinstance(value, Instance):
                        return value
        return None
