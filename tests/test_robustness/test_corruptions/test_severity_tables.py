# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The tables in the docstrings of corruptions say what their code computes with."""

import ast
import inspect
import re
import textwrap

import pytest

from mmdet_adasap.robustness.corruptions import CORRUPTIONS, SEVERITIES


def documented(function) -> tuple[list[str], list[tuple[float, ...]]]:
    """Return the names of the rows, and the numbers of each severity from top to bottom."""
    lines = inspect.getdoc(function).splitlines()
    borders = [number for number, line in enumerate(lines) if re.fullmatch('=+( =+)+', line)]
    first, last = borders
    # Cells may be empty, so columns are told by the border, not by spaces.
    columns = [slice(*match.span()) for match in re.finditer('=+', lines[first])]
    rows = [[line[column].strip() for column in columns] for line in lines[first + 1 : last]]
    for line, row in zip(lines[first + 1 : last], rows, strict=True):
        assert line.split() == [cell for cell in row if cell], f'{line!r} leaves its columns'
    names = [row[0] for row in rows]
    assert rows[0] == ['severity', *map(str, SEVERITIES)]
    numbers = zip(*(row[1:] for row in rows[1:]), strict=True)
    return names[1:], [tuple(float(cell) for cell in column if cell) for column in numbers]


def in_code(function) -> list[tuple[float, ...]]:
    """Return the numbers of each severity: of the one tuple that ``severity - 1`` indexes."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    (table,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.slice) == 'severity - 1'
    )
    if isinstance(table, ast.Name):
        (table,) = (
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == table.id
        )
    return [
        tuple(
            float(ast.literal_eval(number))
            for number in (one.elts if isinstance(one, ast.Tuple) else [one])
            # spatter names a function among its numbers.
            if not isinstance(number, ast.Name)
        )
        for one in table.elts
    ]


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_documented_numbers_are_those_of_the_code(name):
    names, numbers = documented(CORRUPTIONS[name])
    assert numbers == in_code(CORRUPTIONS[name])
    assert len(set(names)) == len(names)
    assert len(numbers) == len(SEVERITIES)


@pytest.mark.parametrize(('old', 'new'), [('0.38', '0.39'), ('0.08 0.12', '0.12 0.08')])
def test_another_number_is_noticed(monkeypatch, old, new):
    function = CORRUPTIONS['gaussian_noise']
    text = function.__doc__.replace(old, new, 1)
    assert text != function.__doc__
    monkeypatch.setattr(function, '__doc__', text)
    assert documented(function)[1] != in_code(function)


def test_rows_are_unpacked_in_the_order_of_the_table():
    """Where several numbers have names in the code, those of the table are these names."""
    for name, function in CORRUPTIONS.items():
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        unpacked = [
            [ast.unparse(target) for target in node.targets[0].elts]
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and ast.unparse(node.value).endswith('[severity - 1]')
        ]
        rows = documented(function)[0]
        # frost and saturate call them a and b, as their formulas do; spatter has a function, too.
        if unpacked and name not in ('frost', 'saturate', 'spatter'):
            assert unpacked == [rows], name
