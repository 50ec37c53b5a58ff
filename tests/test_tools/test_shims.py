# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The programs of tools/ that are commands of the package."""

import ast
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'
SHIMS = {
    'robustness.py': 'robustness_command',
    'export.py': 'export_command',
    'list_groups.py': 'groups_command',
    'corrupt_voc.py': 'corrupt_command',
}
each_shim = pytest.mark.parametrize('name', SHIMS)


@each_shim
def test_shim_only_calls_the_command(name):
    text = (TOOLS / name).read_text()
    assert ast.get_docstring(ast.parse(text))
    lines = text.split('"""')[2].split('\n')
    assert [line for line in lines if line] == [
        f'from mmdet_adasap.cli.{SHIMS[name]} import main',
        "if __name__ == '__main__':",
        '    main()',
    ]


@each_shim
def test_help_shows_examples_of_the_program(name, run_tool):
    code, printed, _ = run_tool(name, '--help')
    assert code == 0
    assert printed.startswith(f'usage: {name} ')
    assert f'python tools/{name} ' in printed.partition('\nexamples:\n')[2]
