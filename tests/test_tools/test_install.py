# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import dataclasses
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import setuptools

ROOT = Path(__file__).parents[2]
OPENMMLAB = {'mmengine', 'mmengine-lite', 'mmcv', 'mmcv-lite', 'mmdet', 'mmpretrain'}
ONEDL = {'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain'}


@pytest.fixture
def mmcv_wheel(monkeypatch, tmp_path):
    """tools/dev/mmcv_wheel.py as a module, with its cache in a temporary folder."""
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'dev')
    monkeypatch.delitem(sys.modules, 'mmcv_wheel', raising=False)
    monkeypatch.setenv('MMDET_ADASAP_CACHE', str(tmp_path / 'the cache'))
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    return importlib.import_module('mmcv_wheel')


@pytest.fixture
def setup_env(monkeypatch, mmcv_wheel):
    """tools/dev/setup_env.py as a module."""
    monkeypatch.delitem(sys.modules, 'setup_env', raising=False)
    return importlib.import_module('setup_env')


class TestSetup:
    @pytest.fixture
    def arguments(self, monkeypatch):
        caught = {}
        monkeypatch.setattr(setuptools, 'setup', caught.update)
        runpy.run_path(str(ROOT / 'setup.py'))
        return caught

    @staticmethod
    def names(requirements):
        return {re.match(r'[\w.-]+', text)[0].lower() for text in requirements}

    def test_install_overwrites_no_openmmlab(self, arguments):
        assert self.names(arguments['install_requires']) == {
            'jinja2',
            'numpy',
            'scipy',
            'torch',
        }

    def test_no_extra_asks_for_what_pip_alone_cannot_install(self, arguments):
        """Built apart from torch, mmcv has no operators, and its mmdet finds that out later."""
        extras = arguments['extras_require']
        assert set(extras) == {'export', 'demo', 'tests', 'lint'}
        for requirements in extras.values():
            assert not self.names(requirements) & (OPENMMLAB | ONEDL)

    def test_no_text_names_an_extra_that_there_is_not(self, arguments):
        named = re.compile(r'(?:mmdet_adasap|(?<=[ \'"])\.)\[([a-z]+)\]')
        pages = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), ROOT / 'Makefile']
        sources = [
            file
            for folder in ('mmdet_adasap', 'tools')
            for file in ROOT.joinpath(folder).rglob('*.py')
        ]
        for file in [*pages, *sources]:
            assert set(named.findall(file.read_text())) <= set(arguments['extras_require']), file

    def test_every_package_is_packed(self, arguments):
        folders = {path.parent for path in (ROOT / 'mmdet_adasap').rglob('__init__.py')}
        packages = {'.'.join(folder.relative_to(ROOT).parts) for folder in folders}
        assert set(arguments['packages']) == packages

    def test_every_other_file_is_packed(self, arguments):
        """Without a template, an installed package could write no report."""
        packed = {
            file
            for package, patterns in arguments['package_data'].items()
            for pattern in patterns
            for file in ROOT.joinpath(*package.split('.')).glob(pattern)
        }
        files = {path for path in (ROOT / 'mmdet_adasap').rglob('*') if path.is_file()}
        assert packed == {path for path in files if path.suffix not in ('.py', '.pyc')}


class TestFindPython:
    def run(self, folder, **environment):
        return subprocess.run(
            ['/bin/sh', str(ROOT / 'tools' / 'dev' / 'find_python.sh')],
            cwd=folder,
            env={'PATH': f'{folder}:/usr/bin:/bin', **environment},
            capture_output=True,
            text=True,
        )

    @staticmethod
    def script(path, text):
        path.write_text(f'#!/bin/sh\n{text}\n')
        path.chmod(0o755)

    def test_passes_over_a_name_that_does_not_run(self, tmp_path):
        """A pyenv shim is found on the path and fails when it is called."""
        self.script(tmp_path / 'python3.11', 'echo "command not found" >&2; exit 127')
        self.script(tmp_path / 'python3.12', f'exec "{sys.executable}" "$@"')
        done = self.run(tmp_path)
        if done.returncode != 0 and 'headers' in done.stderr:
            pytest.skip('the Python of these tests has no C headers')
        assert done.stdout == f'{sys.executable}\n'

    def test_says_what_is_wrong_with_the_named_one(self, tmp_path):
        self.script(
            tmp_path / 'mine', 'echo "is Python 3.9; 3.10, 3.11 or 3.12 is needed"; exit 1'
        )
        done = self.run(tmp_path, PYTHON='mine')
        assert (done.returncode, done.stdout) == (1, '')
        assert 'mine is Python 3.9; 3.10, 3.11 or 3.12 is needed' in done.stderr
        assert 'make install PYTHON=' in done.stderr


class TestMmcvWheel:
    REQUIREMENT = 'onedl-mmcv==2.3.6'
    TORCH = '2.11.0'

    def get(self, module):
        return module.mmcv_wheel(self.REQUIREMENT, self.TORCH, Path('python'))

    def test_the_cache_is_named_by_torch_python_and_machine(
        self, mmcv_wheel, tmp_path, monkeypatch
    ):
        python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
        name = f'torch2.11.0-{python}-{os.uname().machine}'
        assert mmcv_wheel.wheel_folder(self.TORCH) == tmp_path / 'the cache' / name
        monkeypatch.delenv('MMDET_ADASAP_CACHE')
        monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
        assert mmcv_wheel.wheel_folder(self.TORCH) == tmp_path / 'xdg' / 'mmdet_adasap' / name

    def test_it_is_compiled_once(self, mmcv_wheel, monkeypatch):
        calls = []

        def compile_mmcv(requirement, python, out, log):
            calls.append(requirement)
            wheel = out / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl'
            wheel.write_text('compiled')
            return wheel

        monkeypatch.setattr(mmcv_wheel, 'compile_mmcv', compile_mmcv)
        wheels = {self.get(mmcv_wheel) for _ in range(2)}
        (wheel,) = wheels
        assert calls == [self.REQUIREMENT]
        assert wheel.read_text() == 'compiled'
        assert list(mmcv_wheel.wheel_folder(self.TORCH).iterdir()) == [wheel]

    def test_an_interrupted_compilation_leaves_nothing(self, mmcv_wheel, monkeypatch):
        def interrupted(requirement, python, out, log):
            (out / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl').write_text('half')
            raise KeyboardInterrupt

        folder = mmcv_wheel.wheel_folder(self.TORCH)
        (folder / 'compiling-by-a-call-that-was-killed').mkdir()
        monkeypatch.setattr(mmcv_wheel, 'compile_mmcv', interrupted)
        with pytest.raises(KeyboardInterrupt):
            self.get(mmcv_wheel)
        assert list(folder.iterdir()) == []

    def test_progress(self, mmcv_wheel, tmp_path, capsys):
        lines = ['Building\n', '  [1/78] c++ -MMD a.o\n', '  [78/78] c++ z.o\n', 'Created\n']
        tail = mmcv_wheel.show_progress(iter(lines), tmp_path / 'log', kept=2)
        assert list(tail) == lines[-2:]
        assert (tmp_path / 'log').read_text() == ''.join(lines)
        assert '[78/78] objects compiled, 0.0 min' in capsys.readouterr().out


class TestSetupEnv:
    def test_the_stamp_follows_the_requirements(self, setup_env, tmp_path, monkeypatch):
        before = setup_env.DEFAULT.stamp
        for path in setup_env.REQUIREMENTS.glob('*.txt'):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(setup_env, 'REQUIREMENTS', tmp_path)
        assert setup_env.DEFAULT.stamp == before
        with (tmp_path / 'torch.txt').open('a') as file:
            file.write('# changed\n')
        assert setup_env.DEFAULT.stamp != before

    def test_the_original_stack_takes_the_place_of_the_default_one(self, setup_env):
        default, original = setup_env.DEFAULT, setup_env.ORIGINAL
        names = [setup_env.name_of(line) for line in default.requirements('runtime.txt')]
        instead = original.requirements('runtime.txt')
        assert [setup_env.name_of(line) for line in instead] == names
        changed = set(instead) - set(default.requirements('runtime.txt'))
        assert changed == {'numpy==1.26.4', 'opencv-python-headless==4.11.0.86'}
        assert default.pinned('torch', 'onedl-mmcv') == ['torch==2.11.0', 'onedl-mmcv==2.3.6']
        assert original.pinned('torch', 'mmcv') == ['torch==2.1.2', 'mmcv==2.1.0']

    def test_the_default_stack_has_onnx_whole(self, setup_env):
        """pip is told to install no dependencies, so that they have to be named."""
        named = {
            setup_env.name_of(line)
            for line in setup_env.DEFAULT.requirements(*setup_env.DEFAULT.files)
        }
        named |= {'typing-extensions'}  # torch brings it
        for package in ('onnx', 'onnxruntime'):
            assert package in named
            try:
                needed = metadata.requires(package) or []
            except metadata.PackageNotFoundError:
                continue  # the other stack, or an environment from before
            assert {setup_env.name_of(each) for each in needed if 'extra ==' not in each} <= named
        assert 'onnx' not in {
            setup_env.name_of(line)
            for line in setup_env.ORIGINAL.requirements(*setup_env.ORIGINAL.files)
        }

    def test_a_foreign_venv_is_not_removed(self, setup_env, tmp_path):
        foreign = tmp_path / '.venv' / 'mine.txt'
        foreign.parent.mkdir()
        foreign.touch()
        stack = dataclasses.replace(setup_env.ORIGINAL, venv=foreign.parent)
        with pytest.raises(SystemExit, match=r'move it away.*`make install-original PYTHON=') as e:
            setup_env.make_venv(stack)
        assert str(foreign.parent) in str(e.value)
        assert foreign.exists()


# Stands for a compiler: tells macros as it does, and notes how it is called to compile.
COMPILER = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__)
if '-dM' in sys.argv:
    print({macros!r})
else:
    here.with_name('arguments').write_text(chr(10).join(sys.argv[1:]))
    if {status}:
        sys.exit({status})
    pathlib.Path(sys.argv[sys.argv.index('-o') + 1]).write_text('compiled')
"""
GCC = '#define __GNUC__ 13\n#define __cplusplus 201703L'
CLANG = '#define __GNUC__ 4\n#define __clang__ 1'  # which says that it is as good as GCC 4


class TestCompilerFlags:
    @pytest.fixture
    def compiler(self, tmp_path, monkeypatch) -> Callable[..., Path]:
        """Write a stand-in compiler, which CXX names; returns its path."""

        def write(macros: str, status: int = 0) -> Path:
            path = tmp_path / 'bin' / 'c++'
            path.parent.mkdir()
            path.write_text(COMPILER.format(python=sys.executable, macros=macros, status=status))
            path.chmod(0o755)
            monkeypatch.setenv('CXX', str(path))
            return path

        monkeypatch.delenv('CFLAGS', raising=False)
        return write

    @pytest.fixture
    def flags_of(self, mmcv_wheel, tmp_path, monkeypatch):
        """Call compiler_flags, with arguments of an extension that need no torch."""
        monkeypatch.setattr(
            mmcv_wheel,
            'extension_arguments',
            lambda python, flags: [*shlex.split(flags), '-I/of/torch'],
        )

        def call() -> tuple[list[str], bool]:
            scratch = tmp_path / "the compiler's scratch"  # to be quoted for a shell
            scratch.mkdir()
            flags, in_advance = mmcv_wheel.compiler_flags(Path('python'), scratch)
            return shlex.split(flags), in_advance

        return call

    @staticmethod
    def plain() -> list[str]:
        """Python's own flags, and those of mmcv_wheel.py."""
        return [*shlex.split(sysconfig.get_config_var('CFLAGS') or ''), '-g0', '-O2']

    def test_gcc_reads_headers_that_are_compiled_in_advance(self, mmcv_wheel, compiler, flags_of):
        path = compiler(GCC)
        flags, in_advance = flags_of()
        assert in_advance
        header = Path(flags[-2])
        assert flags == [*self.plain(), '-include', str(header), '-Winvalid-pch']
        # Where it does not fit, GCC reads the header itself.
        assert header.read_text() == mmcv_wheel.HEADERS
        assert Path(f'{header}.gch').read_text() == 'compiled'
        arguments = path.with_name('arguments').read_text().splitlines()
        expected = [*self.plain(), '-I/of/torch', '-std=c++17', '-x', 'c++-header', str(header)]
        assert arguments == [*expected, '-o', f'{header}.gch']

    def test_clang_compiles_no_headers(self, compiler, flags_of):
        path = compiler(CLANG)
        assert flags_of() == (self.plain(), False)
        assert not path.with_name('arguments').exists()

    def test_gpus_compile_no_headers(self, compiler, flags_of, monkeypatch):
        path = compiler(GCC)
        monkeypatch.setenv('FORCE_CUDA', '1')
        assert flags_of() == (self.plain(), False)
        assert not path.with_name('arguments').exists()

    def test_headers_that_do_not_compile(self, compiler, flags_of):
        path = compiler(GCC, status=1)
        assert flags_of() == (self.plain(), False)
        assert path.with_name('arguments').exists()

    @pytest.mark.parametrize(('macros', 'status'), [(GCC, 0), (GCC, 1), (CLANG, 0)])
    def test_the_users_flags_are_kept(self, compiler, flags_of, monkeypatch, macros, status):
        """Behind the others, so that they win."""
        path = compiler(macros, status)
        monkeypatch.setenv('CFLAGS', "-O3 -DNAME='two words'")
        flags, _ = flags_of()
        expected = [*self.plain(), '-O3', '-DNAME=two words']
        assert flags[: len(expected)] == expected
        if macros is GCC:
            arguments = path.with_name('arguments').read_text().splitlines()
            assert arguments[: len(expected)] == expected

    def test_is_gcc(self, mmcv_wheel, compiler, tmp_path):
        path = compiler(GCC)
        assert mmcv_wheel.is_gcc(str(path))
        text = path.read_text()
        path.write_text(text.replace(repr(GCC), repr(CLANG)))
        assert not mmcv_wheel.is_gcc(str(path))
        path.write_text(text.replace(repr(GCC), repr('#define _MSC_VER 1930')))
        assert not mmcv_wheel.is_gcc(str(path))
        assert not mmcv_wheel.is_gcc(str(tmp_path / 'no compiler'))

    def test_extension_arguments(self, mmcv_wheel, tmp_path, monkeypatch):
        """Setuptools' own, with CFLAGS in them, and torch's folders of headers."""
        fake = tmp_path / 'torch' / 'utils'
        fake.mkdir(parents=True)
        for folder in (fake.parent, fake):
            (folder / '__init__.py').touch()
        (fake / 'cpp_extension.py').write_text('def include_paths(): return ["/of/torch"]\n')
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))
        monkeypatch.setenv('CFLAGS', '-DOF_THE_CALLER')
        arguments = mmcv_wheel.extension_arguments(Path(sys.executable), "-g0 -DNAME='two words'")
        assert '-fPIC' in arguments
        place = arguments.index('-g0')
        assert arguments[place + 1] == '-DNAME=two words'
        assert '-DOF_THE_CALLER' not in arguments
        assert arguments[-2:] == ['-I/of/torch', f'-I{sysconfig.get_path("include")}']
