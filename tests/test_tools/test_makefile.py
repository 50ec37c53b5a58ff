# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the Makefile offers, and that the READMEs call what is there. Nothing is run."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = [ROOT / 'README.md', *sorted((ROOT / 'configs').rglob('README.md'))]
MAKEFILE = (ROOT / 'Makefile').read_text()
TARGETS = set(re.search(r'^\.PHONY: (.+)$', MAKEFILE, re.M)[1].split())
# mmdet's own tools, which `python -m mmdet_adasap.env --tool` finds.
OF_MMDET = {'tools/train.py', 'tools/test.py'}

pytestmark = pytest.mark.skipif(shutil.which('make') is None, reason='make is missing')


def make(*arguments: str) -> str:
    """What make prints. Without the variables of the make that may have started the tests."""
    done = subprocess.run(
        ['make', *arguments],
        cwd=ROOT,
        env={'PATH': os.environ['PATH']},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def recipe(target: str) -> list[list[str]]:
    """The commands of a target, as `make -n` prints them, without those of `install`."""
    commands = [shlex.split(line) for line in make('-n', target).splitlines()]
    return [command for command in commands if 'tools/dev/setup_env.py' not in command]


def test_help_tells_every_target():
    printed = make()
    told = re.findall(r'^  make ([a-z-]+) ', printed, re.M)
    assert sorted(told) == sorted(TARGETS)
    assert 'MMDET_ADASAP_CACHE' in printed


def test_lint_checks_format_style_imports_and_layout():
    commands = [command[command[0].endswith('python') :] for command in recipe('lint')]
    assert commands == [
        ['-m', 'ruff', 'format', '--check', '.'],
        ['-m', 'ruff', 'check', '.'],
        ['.venv/bin/lint-imports', '--no-logo', '--no-cache'],
        ['tools/dev/house.py', '--check'],
    ]
    assert (ROOT / 'tools/dev/house.py').is_file()


@pytest.mark.parametrize(
    ('target', 'markers'), [('test', None), ('test-quick', 'not slow and not long')]
)
def test_tests_share_two_processes_file_by_file(target, markers):
    (command,) = recipe(target)
    assert command[command.index('-n') :][:4] == ['-n', '2', '--dist', 'loadfile']
    assert ('-m' in command[4:]) == (markers is not None)
    if markers:
        assert command[command.index('loadfile') + 1 :] == ['-m', markers]


@pytest.mark.parametrize('readme', READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_calls_targets_and_files_that_are_there(readme):
    text = readme.read_text()
    called = re.findall(r'(?:`|^)make ([a-z][a-z-]*)', text, re.M)
    assert set(called) <= TARGETS
    for path in set(re.findall(r'\b(?:tools|tests)/[\w/.-]+\.py\b', text)) - OF_MMDET:
        assert (ROOT / path).is_file(), path


def test_readme_shows_the_targets():
    text = READMES[0].read_text()
    called = set(re.findall(r'^make ([a-z][a-z-]*)', text, re.M))
    assert called >= {'demo', 'demo-classification', 'test', 'test-quick'}
