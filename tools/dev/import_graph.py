# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Who imports whom in a package, read off its source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

NOT_RUN_AT_IMPORT = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Import(NamedTuple):
    """One imported name: the module with the statement, its line, and the module it leads to.

    ``name`` is what is asked of the target, or None if the target itself is what is asked for.
    """

    importer: str
    line: int
    target: str
    name: str | None
    bound: str


@dataclass
class Module:
    """One file of the package."""

    name: str
    path: Path
    source: str
    tree: ast.Module

    @property
    def is_face(self) -> bool:
        """Whether it is the ``__init__.py`` of its folder."""
        return self.path.name == '__init__.py'

    @cached_property
    def line_count(self) -> int:
        """Number of lines, blank ones too."""
        return len(self.source.splitlines())


class Package:
    """All modules of a package, by their dotted names.

    Args:
        folder (Path): The package's folder; its name is the import name.

    Raises:
        FileNotFoundError: If it has no ``__init__.py``.
        SyntaxError: If a file cannot be parsed.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.resolve()
        if not (folder / '__init__.py').is_file():
            raise FileNotFoundError(f'{folder} is not a package: it has no __init__.py')
        self.name = folder.name
        self.folder = folder
        self.modules: dict[str, Module] = {}
        for path in sorted(folder.rglob('*.py')):
            parts = [self.name, *path.relative_to(folder).with_suffix('').parts]
            name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
            source = path.read_text(encoding='utf-8')
            self.modules[name] = Module(name, path, source, ast.parse(source, str(path)))

    def path(self, name: str) -> str:
        """Return a module's path inside the package."""
        return self.modules[name].path.relative_to(self.folder).as_posix()

    def imports(self, module: Module, nodes: Iterable[ast.AST]) -> Iterator[Import]:
        """Give the imports among some nodes that stay within the package.

        Args:
            module (Module): The module that the nodes are of.
            nodes (Iterable[ast.AST]): As :func:`run_at_import` or ``ast.walk`` gives them.
        """
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in self.modules:
                        bound = alias.asname or alias.name
                        yield Import(module.name, node.lineno, alias.name, None, bound)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(module, node)
                for alias in node.names:
                    target, name = f'{base}.{alias.name}', None
                    if target not in self.modules:
                        target, name = base, alias.name
                    if target in self.modules:
                        bound = alias.asname or alias.name
                        yield Import(module.name, node.lineno, target, name, bound)

    @staticmethod
    def _base(module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ''
        parts = module.name.split('.')
        parts = parts[: len(parts) - node.level + module.is_face]
        return '.'.join([*parts, node.module] if node.module else parts)

    @cached_property
    def module_level_imports(self) -> list[Import]:
        """Imports that run with the module, and those under ``if TYPE_CHECKING``."""
        return [
            found
            for module in self.modules.values()
            for found in self.imports(module, run_at_import(module.tree))
        ]

    @cached_property
    def all_imports(self) -> list[Import]:
        """All imports, those inside functions too."""
        return [
            found
            for module in self.modules.values()
            for found in self.imports(module, ast.walk(module.tree))
        ]

    def circles(self) -> list[list[str]]:
        """Find modules that import each other, directly or through others.

        A module also loads the faces of the folders above what it imports. These edges are not
        counted: with them every folder whose face imports from it would be a circle.

        Returns:
            list[list[str]]: Each circle's modules, sorted.
        """
        edges: dict[str, set[str]] = {name: set() for name in self.modules}
        for found in self.module_level_imports:
            edges[found.importer].add(found.target)
        reached = {name: _reachable(name, edges) for name in edges}
        circles = {
            tuple(sorted({name, *(other for other in reached[name] if name in reached[other])}))
            for name in edges
        }
        return sorted(list(circle) for circle in circles if len(circle) > 1)


def run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over a module without the bodies of its functions."""
    for child in ast.iter_child_nodes(tree):
        if not isinstance(child, NOT_RUN_AT_IMPORT):
            yield child
            yield from run_at_import(child)


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    to_do = [start]
    while to_do:
        for target in edges[to_do.pop()] - reached:
            reached.add(target)
            to_do.append(target)
    return reached
