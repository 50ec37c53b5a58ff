# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from _utils.fake_packages import ORIGINAL, install_fake, pretend
from mmdet_adasap import __version__
from mmdet_adasap.env import command

ROOT = Path(__file__).parents[2]


def run_env(*arguments, options=(), env=None):
    return subprocess.run(
        [sys.executable, *options, '-m', 'mmdet_adasap.env', *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )


class TestFindTool:
    @pytest.mark.parametrize('name', ['train', 'test', 'train.py', 'analysis_tools/get_flops'])
    def test_finds_what_mmdet_ships(self, name):
        pytest.importorskip('mmdet')
        path = command.find_tool(name)
        assert path.is_file()
        assert path.as_posix().endswith(f'tools/{name.removesuffix(".py")}.py')

    @pytest.mark.parametrize('name', ['train', 'test.py'])
    def test_finds_what_mmpretrain_ships(self, name, monkeypatch):
        """Also where there is no mmdet."""
        pytest.importorskip('mmpretrain')
        folder = command.package_folder
        monkeypatch.setattr(
            command, 'package_folder', lambda n: None if n == 'mmdet' else folder(n)
        )
        path = command.find_tool(f'mmpretrain::{name}')
        assert path.is_file()
        assert path.as_posix().endswith(f'mmpretrain/.mim/tools/{name.removesuffix(".py")}.py')
        with pytest.raises(FileNotFoundError, match='mmdet is not installed'):
            command.find_tool(name)

    def test_unknown_package(self):
        with pytest.raises(FileNotFoundError, match='mmwhat is not installed'):
            command.find_tool('mmwhat::train')

    def test_unknown_tool(self):
        pytest.importorskip('mmdet')
        with pytest.raises(FileNotFoundError, match=r"no tool 'trian': looked for trian\.py"):
            command.find_tool('trian')

    def test_clone(self, tmp_path, monkeypatch):
        """An editable clone has its tools beside the package."""
        (tmp_path / 'mmdet').mkdir()
        (tmp_path / 'tools').mkdir()
        (tmp_path / 'tools' / 'train.py').touch()
        monkeypatch.setattr(command, 'package_folder', lambda name: tmp_path / name)
        assert command.find_tool('train') == tmp_path / 'tools' / 'train.py'

    def test_command_prints_the_path_alone_and_imports_nothing_heavy(self):
        pytest.importorskip('mmdet')
        done = run_env('--tool', 'train', options=('-X', 'importtime'))
        assert done.returncode == 0
        assert done.stdout == f'{command.find_tool("train")}\n'
        imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
        assert not imported & {'torch', 'numpy', 'mmengine', 'mmdet'}

    def test_command_fails_on_stderr(self):
        done = run_env('--tool', 'trian')
        assert (done.returncode, done.stdout) == (1, '')
        assert 'trian' in done.stderr


class TestCollect:
    @pytest.mark.long  # it imports all packages in a process of its own
    def test_this_environment(self, capsys):
        pytest.importorskip('mmdet')
        status = command.main(['--json'])
        report = json.loads(capsys.readouterr().out)
        assert status == bool(report['problems'])
        assert report['mmdet_adasap'] == __version__
        for name in ('mmengine', 'mmcv', 'mmdet'):
            assert report['packages'][name]['family'] in ('onedl', 'original')
            assert report['packages'][name]['error'] == ''
        assert report['mmcv_ops'].startswith('CPU')
        assert set(report['tools']) == {'train.py', 'test.py'}

    def test_nothing_installed(self):
        """-S leaves out site-packages; the package is found in the checkout."""
        done = run_env(options=('-S',))
        assert done.returncode == 1
        assert 'Traceback' not in done.stderr
        for name in ('torch', 'numpy', 'mmengine', 'mmcv'):
            assert f'PROBLEM: {name} is not installed. Remedy: ' in done.stdout
        assert 'PROBLEM: Neither mmdet nor mmpretrain is installed' in done.stdout
        assert run_env('--tool', 'train', options=('-S',)).returncode == 1

    def test_packages_that_do_not_go_together(self, tmp_path):
        """mmdet 3.3.0 refuses mmcv 2.2.0, in an environment that has nothing but fakes."""
        for name, version in ORIGINAL.items():
            install_fake(tmp_path, name, '2.2.0' if name == 'mmcv' else version)
        for name in ('torch', 'torchvision', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmpretrain'):
            (tmp_path / f'{name}.py').write_text('print("noise")')
        (tmp_path / 'mmdet').mkdir()
        (tmp_path / 'mmdet' / '__init__.py').write_text(
            "assert 0, 'MMCV==2.2.0 is used but incompatible. Please install "
            "mmcv>=2.0.0rc4, <2.2.0.'"
        )
        done = run_env(options=('-S',), env=os.environ | {'PYTHONPATH': str(tmp_path)})
        assert done.returncode == 1
        assert 'noise' not in done.stdout
        assert 'Traceback' not in done.stderr
        (line,) = [line for line in done.stdout.splitlines() if 'refuses' in line]
        assert line.startswith('PROBLEM: mmdet 3.3.0 refuses mmcv 2.2.0')
        assert 'mmcv==2.1.0' in line
        assert 'onedl' not in done.stdout

    @pytest.mark.parametrize('broken', ['numpy', 'torch', 'cv2', 'pkg_resources', 'mmengine'])
    def test_what_all_others_fail_with_is_said_of_its_cause(self, tmp_path, broken):
        """With real imports: each package imports those before it, and raises what they do."""
        for name, version in ORIGINAL.items():
            install_fake(tmp_path, name, version)
        names = ['numpy', 'torch', 'pkg_resources', 'torchvision', 'cv2', 'mmengine', 'mmcv']
        names += ['mmdet', 'mmpretrain']
        for index, name in enumerate(names):
            (tmp_path / name).mkdir()
            needs = ''.join(f'import {other}\n' for other in names[:index])
            raises = 'raise OSError("libcublas.so.12: cannot open")\n' if name == broken else ''
            (tmp_path / name / '__init__.py').write_text(needs + raises)
        for file in ('mmcv/_ext', 'mmcv/ops', 'mmdet/models', 'torch/utils'):
            (tmp_path / f'{file}.py').touch()
        done = run_env(options=('-S',), env=os.environ | {'PYTHONPATH': str(tmp_path)})
        assert done.returncode == 1
        assert 'Nothing is wrong' not in done.stdout
        said = [line for line in done.stdout.splitlines() if 'libcublas' in line]
        named = 'mmengine 0.10.7 reads' if broken == 'pkg_resources' else f'{broken} is installed'
        (line,) = [line for line in said if line.startswith('PROBLEM: ')]
        assert line.startswith(f'PROBLEM: {named}')

    def test_text(self, monkeypatch):
        pretend(monkeypatch, ORIGINAL | {'onedl-mmcv': '2.3.6'})
        monkeypatch.setattr(command, 'find_tool', lambda name: f'tools/{name}.py')
        text = command.render(command.collect())
        assert re.search(r'^mmdet +3\.3\.0, original$', text, re.MULTILINE)
        assert re.search(r'^mmcv +2\.3\.6 \(onedl-mmcv\), 2\.1\.0, BOTH$', text, re.MULTILINE)
        assert re.search(r'^mmdet train\.py +tools/train\.py$', text, re.MULTILINE)
        assert 'PROBLEM: mmcv is installed twice' in text
        assert 'Nothing is wrong' not in text
