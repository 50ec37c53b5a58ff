# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the Makefile offers; nothing of it is run."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / 'Makefile').read_text()
TARGETS = set(re.search(r'^\.PHONY: (.+)$', MAKEFILE, re.M)[1].split())

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
    lines = make('-n', target).replace('\\\n', ' ').splitlines()
    commands = [shlex.split(line) for line in lines]
    return [command for command in commands if 'tools/dev/setup_env.py' not in command]


def test_the_original_packages_run_what_touches_the_frameworks():
    (command,) = recipe('test-original')
    assert command[2] == '.venv-original/bin/python'
    assert command[command.index('-m', 4) + 1] == 'not slow or chain'
    assert command[-1] == '--ignore=tests/test_tools'


def test_help_tells_every_target():
    printed = make()
    told = re.findall(r'^  make ([a-z-]+) ', printed, re.M)
    assert sorted(told) == sorted(TARGETS)
    assert 'MMDET_ADASAP_CACHE' in printed


def test_lint_checks_format_style_imports_and_layout():
    """One after the other, also where one fails."""
    commands = [
        '.venv/bin/python -m ruff format --check .',
        '.venv/bin/python -m ruff check .',
        '.venv/bin/lint-imports --no-logo --no-cache',
        '.venv/bin/python tools/dev/house.py --check',
    ]
    printed = make('-n', 'lint')
    assert re.findall(r'(\.venv/\S+ .+?) \|\| failed=1', printed) == commands
    assert 'exit $failed' in printed
    assert (ROOT / 'tools/dev/house.py').is_file()


@pytest.mark.parametrize(
    ('target', 'markers'), [('test', None), ('test-quick', 'not slow and not long')]
)
def test_tests_share_two_processes_file_by_file(target, markers):
    (command,) = recipe(target)
    assert command[command.index('-n') :][:4] == ['-n', '2', '--dist', 'loadfile']
    assert ('-m' in command[4:]) == (markers is not None)
    if markers:
        assert command[-2:] == ['-m', markers]
    assert command[command.index('--max-worker-restart') + 1] == '1'


def test_readme_shows_the_targets():
    text = (ROOT / 'README.md').read_text()
    called = set(re.findall(r'^make ([a-z-]+)', text, re.M))
    assert called >= {'demo', 'demo-classification', 'test', 'test-quick'}


def test_the_workflow_runs_targets_that_there_are():
    """Both families of packages, lint with one of them."""
    workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'tests.yml').read_text())
    (job,) = workflow['jobs'].values()
    jobs = job['strategy']['matrix']['include']
    assert {target for each in jobs for target in each['run'].split()} == {
        'lint',
        'test',
        'test-original',
    }
    assert {each['install'] for each in jobs} <= TARGETS
    (chain,) = [step for step in job['steps'] if 'chain' in step.get('run', '')]
    assert chain['run'].startswith("make test ARGS='-m chain'")
    assert chain['if'] == "matrix.install == 'install'"


def test_the_workflow_keeps_what_each_leg_needs():
    """One name for two caches would keep the first; all requirements would compile mmcv anew."""
    workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'tests.yml').read_text())
    (job,) = workflow['jobs'].values()
    uses = [(step['uses'], step.get('with')) for step in job['steps'] if 'uses' in step]
    (python,) = [options for name, options in uses if name.startswith('actions/setup-python')]
    kept = [options for name, options in uses if name.startswith('actions/cache')]
    assert python['cache-dependency-path'].split() == [
        'requirements/*.txt',
        '!requirements/${{',
        'matrix.other',
        '}}.txt',
    ]
    others = {each['install']: each['other'] for each in job['strategy']['matrix']['include']}
    assert others == {'install': 'original', 'install-original': 'onedl'}
    assert 'MMDET_ADASAP_CACHE' in job['env']
    assert [step['path'] for step in kept] == ['${{ env.MMDET_ADASAP_CACHE }}'] * 2
    hashed = re.findall(r"'([^']+)'", kept[0]['key'])
    assert sorted(hashed) == [
        *(f'requirements/{name}.txt' for name in ('build', 'mmcv', 'original', 'torch')),
        'tools/dev/mmcv_wheel.py',
    ]
    assert all((ROOT / file).is_file() for file in hashed)
