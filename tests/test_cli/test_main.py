# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_adasap.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
SHIMS = {'groups': 'list_groups.py', 'export': 'export.py'}


@pytest.mark.parametrize('option', ['-h', '--help'])
def test_help_lists_every_command(adasap, option):
    code, out, _ = adasap(option)
    assert code == 0
    assert out.startswith('usage: adasap COMMAND')
    listed = [line.split()[0] for line in out.splitlines() if line.startswith('  ')]
    assert listed == list(COMMANDS)


def test_no_command_prints_help_and_fails(adasap):
    code, out, _ = adasap()
    assert code == 2
    assert out.startswith('usage: adasap COMMAND')


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_a_command_exits_with_0(adasap, command):
    pytest.importorskip('mmdet')
    code, out, err = adasap(command, '--help')
    assert not code
    assert out.startswith('usage: ')
    assert not err


@pytest.mark.parametrize('command', SHIMS)
def test_help_names_the_command_as_started(adasap, command):
    _, out, _ = adasap(command, '--help')
    assert out.startswith(f'usage: adasap {command} ')
    assert f'  adasap {command} ' in out.partition('examples:')[2]
    assert 'tools/' not in out


def test_help_names_python_m(adasap):
    program = 'lib/mmdet_adasap/__main__.py'
    _, out, _ = adasap('--help', program=program)
    assert out.startswith('usage: python -m mmdet_adasap COMMAND')
    _, out, _ = adasap('groups', '--help', program=program)
    assert out.startswith('usage: python -m mmdet_adasap groups ')


@pytest.mark.parametrize('command', SHIMS)
def test_help_of_a_script_names_the_script(run_tool, command):
    code, out, _ = run_tool(SHIMS[command], '--help')
    assert code == 0
    assert out.startswith(f'usage: {SHIMS[command]} ')
    assert f'  python tools/{SHIMS[command]} ' in out


@pytest.mark.parametrize('command', ['robustness', 'corrupt'])
def test_help_does_not_wait_for_torch(command):
    program = [sys.executable, '-X', 'importtime', '-m', 'mmdet_adasap', command, '--help']
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 'usage: ' in done.stdout
    imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
    assert 'argparse' in imported
    assert not imported & {'torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain'}


def test_unknown_command_is_one_line(adasap):
    code, out, err = adasap('prune')
    assert code == "adasap: 'prune' is not one of the commands " + ', '.join(COMMANDS)
    assert not out
    assert not err


@pytest.mark.parametrize(
    ('command', 'arguments'),
    [
        ('groups', ['no_such.py']),
        ('corrupt', ['--data-root', 'no/such', '--out', 'no/where']),
        ('export', ['no_such.py', 'no_such.pth', '--out', 'no/where']),
        ('robustness', ['no_such.py', 'no_such.pth', '--out', 'no/where']),
    ],
)
def test_errors_begin_with_the_command_as_started(
    adasap, command, arguments, monkeypatch, tmp_path
):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    for program, name in (('adasap', 'adasap'), ('__main__.py', 'python -m mmdet_adasap')):
        code, *_ = adasap(command, *arguments, program=program)
        assert code.startswith(f'{name} {command}: '), code
        assert '\n' not in code


@pytest.mark.parametrize('buffered', [True, False])
def test_reader_that_has_gone(buffered):
    """As with ``| head -0``: no traceback, and the status that a shell gives."""
    code, err = without_reader('--help', buffered=buffered)
    assert (code, err) == (141, '')


def without_reader(*arguments: object, buffered: bool = True) -> tuple[int, str]:
    """Run ``python -m mmdet_adasap`` into a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, '-m', 'mmdet_adasap', *map(str, arguments)]
    env = os.environ | {'PYTHONUNBUFFERED': '' if buffered else '1'}
    done = subprocess.run(
        program, cwd=ROOT, env=env, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    return done.returncode, done.stderr.decode()


def test_env_prints_versions(adasap):
    code, out, err = adasap('env')
    assert code in (0, 1)  # 1 if something on this machine is wrong
    assert 'torch' in out
    assert not err
