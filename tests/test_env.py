# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_adasap import __version__, env
from mmdet_adasap.env import Package, Report

ROOT = Path(__file__).parents[1]


def run_env(*arguments, options=()):
    return subprocess.run(
        [sys.executable, *options, '-m', 'mmdet_adasap.env', *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def install_fake(folder, name, version, files=()):
    """Lay down what pip leaves of a distribution, in a folder that is on the path."""
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    (info / 'RECORD').write_text('\n'.join(files))


@pytest.fixture
def onedl():
    """A report of a sound environment."""
    report = Report('3.11.7', __version__)
    for name, (distribution,) in env.FORKS.items():
        report.packages[name] = Package(name, {distribution: '9.9'}, 'onedl')
    for name in env.OTHERS:
        report.packages[name] = Package(name, {name: '2.2.6'})
    return report


class TestFindTool:
    @pytest.mark.parametrize('name', ['train', 'test', 'train.py', 'analysis_tools/get_flops'])
    def test_finds_what_mmdet_ships(self, name):
        pytest.importorskip('mmdet')
        path = env.find_tool(name)
        assert path.is_file()
        assert path.as_posix().endswith(f'tools/{name.removesuffix(".py")}.py')

    @pytest.mark.parametrize('name', ['train', 'test.py'])
    def test_finds_what_mmpretrain_ships(self, name, monkeypatch):
        """Also where there is no mmdet."""
        pytest.importorskip('mmpretrain')
        folder = env.package_folder
        monkeypatch.setattr(env, 'package_folder', lambda n: None if n == 'mmdet' else folder(n))
        path = env.find_tool(f'mmpretrain::{name}')
        assert path.is_file()
        assert path.as_posix().endswith(f'mmpretrain/.mim/tools/{name.removesuffix(".py")}.py')
        with pytest.raises(FileNotFoundError, match='mmdet is not installed'):
            env.find_tool(name)

    def test_unknown_package(self):
        with pytest.raises(FileNotFoundError, match='mmwhat is not installed'):
            env.find_tool('mmwhat::train')

    def test_unknown_tool(self):
        pytest.importorskip('mmdet')
        with pytest.raises(FileNotFoundError, match=r"no tool 'trian': looked for trian\.py"):
            env.find_tool('trian')

    def test_clone(self, tmp_path, monkeypatch):
        """An editable clone has its tools beside the package."""
        (tmp_path / 'mmdet').mkdir()
        (tmp_path / 'tools').mkdir()
        (tmp_path / 'tools' / 'train.py').touch()
        monkeypatch.setattr(env, 'package_folder', lambda name: tmp_path / name)
        assert env.find_tool('train') == tmp_path / 'tools' / 'train.py'

    def test_command_prints_the_path_alone_and_imports_nothing_heavy(self):
        pytest.importorskip('mmdet')
        done = run_env('--tool', 'train', options=('-X', 'importtime'))
        assert done.returncode == 0
        assert done.stdout == f'{env.find_tool("train")}\n'
        imported = {line.split('|')[-1].strip() for line in done.stderr.splitlines()}
        assert not imported & {'torch', 'numpy', 'mmengine', 'mmdet'}

    def test_command_fails_on_stderr(self):
        done = run_env('--tool', 'trian')
        assert (done.returncode, done.stdout) == (1, '')
        assert 'trian' in done.stderr


class TestCollect:
    def test_this_environment(self, capsys):
        pytest.importorskip('mmdet')
        status = env.main(['--json'])
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

    def test_fork_and_original(self, tmp_path, monkeypatch):
        pytest.importorskip('mmcv')
        install_fake(tmp_path, 'onedl-mmcv', '2.3.6')
        install_fake(tmp_path, 'mmcv', '2.1.0')
        monkeypatch.syspath_prepend(tmp_path)
        report = Report('3.11.7', __version__)
        env.inspect_packages(report)
        assert report.packages['mmcv'].family == 'both'
        (problem,) = [text for text in report.problems if 'installed twice' in text]
        assert 'onedl-mmcv 2.3.6 and mmcv 2.1.0' in problem
        assert '`pip uninstall onedl-mmcv mmcv`' in problem
        assert 'BOTH' in env.render(report)

    def test_mmcv_without_operators(self, onedl, monkeypatch):
        pytest.importorskip('mmcv')
        monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
        env.inspect_mmcv_ops(onedl)
        (problem,) = onedl.problems
        assert 'no working compiled operators' in problem
        assert 'MMCV_WITH_OPS=1' in problem
        assert onedl.mmcv_ops == 'none'

    def test_package_that_raises(self, onedl, tmp_path, monkeypatch):
        (tmp_path / 'breaks_at_import.py').write_text('print("noise")\nassert 0, "bad version"')
        monkeypatch.syspath_prepend(tmp_path)
        onedl.packages['mmdet'].error = env.try_import('breaks_at_import')
        env.inspect_import_errors(onedl)
        (problem,) = onedl.problems
        assert problem.startswith('mmdet is installed but cannot be imported (AssertionError: bad')
        assert 'onedl-mmdetection==9.9' in problem

    def test_noise_of_an_import_stays_out_of_the_output(self, tmp_path, monkeypatch, capsys):
        (tmp_path / 'noisy_at_import.py').write_text('print("noise")')
        monkeypatch.syspath_prepend(tmp_path)
        assert env.try_import('noisy_at_import') == ''
        assert capsys.readouterr().out == ''


class TestInspectCombinations:
    def test_sound(self, onedl):
        env.inspect_combinations(onedl)
        assert onedl.problems == []

    def test_mixed_families(self, onedl):
        onedl.packages['mmengine'].family = 'original'
        onedl.packages['numpy'].distributions = {'numpy': '1.26.4'}
        env.inspect_combinations(onedl)
        (problem,) = onedl.problems
        assert 'mmengine original, mmcv onedl' in problem

    @pytest.mark.parametrize(('numpy', 'count'), [('2.2.6', 1), ('1.26.4', 0)])
    def test_numpy_2_with_the_originals(self, onedl, numpy, count):
        for name in env.FORKS:
            onedl.packages[name].family = 'original'
        onedl.packages['numpy'].distributions = {'numpy': numpy}
        env.inspect_combinations(onedl)
        assert len(onedl.problems) == count
        assert all("pip install 'numpy<2'" in problem for problem in onedl.problems)


class TestLiveImagecorruptions:
    DIGEST = 'uU0nuZNNPgilLlLX2n2r-sSE7-N6U4DukIj3rOLvzek'  # sha256 of 'hello world'

    @pytest.mark.parametrize('live', env.IMAGECORRUPTIONS)
    def test_tells_by_the_recorded_hash(self, tmp_path, monkeypatch, live):
        folder = tmp_path / 'imagecorruptions'
        folder.mkdir()
        (folder / '__init__.py').touch()
        (folder / 'corruptions.py').write_text('hello world')
        for name in env.IMAGECORRUPTIONS:
            digest = self.DIGEST if name == live else 'other'
            record = [f'imagecorruptions/corruptions.py,sha256={digest},11']
            install_fake(tmp_path, name, '1.0', record)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(env, 'package_folder', lambda name: tmp_path / name)
        assert env.live_imagecorruptions() == f'{live} 1.0'
