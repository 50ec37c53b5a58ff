# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Compile mmcv with its operators, once, and keep the wheel in a cache folder.

tools/dev/setup_env.py asks for it, before anything but torch is installed, so that it uses the
standard library alone.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

# Minutes of one core for compiling mmcv, with its headers compiled in advance and without.
CORE_MINUTES = {True: 6, False: 18}
# Each of mmcv's files begins with these. Parsing them takes 9/10 of the time that a file takes.
HEADERS = '#include <torch/types.h>\n#include <vector>\n'


def say(text: str) -> None:
    """Print a line of the setup."""
    print(f'[setup] {text}', flush=True)


def stop(text: str) -> None:
    """End the setup with a message."""
    sys.exit(f'[setup] {text}')


def succeeds(*command: str | Path) -> bool:
    """Whether a command runs and exits with 0; what it prints is dropped."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def locked(folder: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder; the system frees it when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def wheel_folder(torch: str) -> Path:
    """Where the compiled mmcv is kept: one folder for each torch, Python and machine type."""
    root = os.environ.get('MMDET_ADASAP_CACHE')
    if not root:
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        root = Path(cache) / 'mmdet_adasap'
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    name = f'torch{torch}-{python}-{platform.machine()}'
    if os.environ.get('FORCE_CUDA') == '1':
        name += '-cuda'
    folder = Path(root).expanduser().absolute() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f'Cannot keep the compiled mmcv in {folder}: {error}. Set MMDET_ADASAP_CACHE.')
    return folder


def mmcv_wheel(requirement: str, torch: str, python: Path) -> Path:
    """Find the compiled mmcv in the cache folder, or compile it into it.

    Args:
        requirement (str): As ``mmcv==2.1.0``.
        torch (str): The version of torch that it is compiled for, and that is installed.
        python (Path): The environment's interpreter.

    Returns:
        Path: The wheel.
    """
    name, _, version = requirement.partition('==')
    folder = wheel_folder(torch)
    with locked(folder, f'waiting for another compilation of mmcv into {folder}'):
        wheels = sorted(folder.glob(f'{name.replace("-", "_")}-{version}-*.whl'))
        if wheels:
            say(f'mmcv {version}: compiled before, from {wheels[-1]}')
            return wheels[-1]
        for left in folder.glob('compiling-*'):  # of a call that was killed: we hold the lock
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix='compiling-', dir=folder) as scratch:
            log = folder / f'mmcv-{version}.log'
            wheel = compile_mmcv(requirement, python, Path(scratch), log)
            # A rename is all or nothing: what lies in the cache is whole.
            return wheel.rename(folder / wheel.name)


def compile_mmcv(requirement: str, python: Path, out: Path, log: Path) -> Path:
    """Compile mmcv's wheel with its operators, showing the progress.

    Args:
        requirement (str): As ``mmcv==2.1.0``.
        python (Path): The environment's interpreter.
        out (Path): Folder for the wheel.
        log (Path): File for all that pip and the compiler say.

    Returns:
        Path: The wheel.
    """
    # It may have arguments, or ccache in front of it.
    if not shutil.which(shlex.split(os.environ.get('CXX') or 'c++')[0]):
        stop('mmcv has to be compiled and there is no C++ compiler: install g++ (or set CXX).')
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        stop(f'mmcv has to be compiled and {sys.executable} has no C headers (Python.h).')
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    jobs = int(os.environ.get('MAX_JOBS') or cores or 1)
    flags, has_headers = compiler_flags(python, out)
    minutes = max(1, round(CORE_MINUTES[has_headers] / jobs))
    say(f'{requirement}: compiling, once, about {minutes} min with {jobs} jobs; log: {log}')
    environment = {
        **os.environ,
        # ninja and the compiler's neighbours are in the environment, not on the user's path.
        'PATH': f'{python.parent}{os.pathsep}{os.environ.get("PATH", os.defpath)}',
        'MAX_JOBS': str(jobs),
        'MMCV_WITH_OPS': '1',
        # Old and new releases of setuptools take the flags for C++ from different ones.
        'CFLAGS': flags,
        'CXXFLAGS': flags,
    }
    if os.environ.get('FORCE_CUDA') != '1':
        # mmcv compiles for a GPU whenever it sees one, and fails where there is no nvcc.
        environment['CUDA_VISIBLE_DEVICES'] = ''
    command = [python, '-m', 'pip', '--disable-pip-version-check', '--no-input', 'wheel', '-v']
    # --no-cache-dir: pip's own cache does not know which torch a wheel was compiled for.
    # --no-binary: the same holds for a wheel that somebody has put on an index.
    command += ['--no-deps', '--no-build-isolation', '--no-cache-dir', '--no-binary', ':all:']
    command += ['--wheel-dir', out, requirement]
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
        start_new_session=True,
    )
    try:
        tail = show_progress(process.stdout, log)
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)  # to ninja too, which then stops the compilers
        raise
    wheels = list(out.glob('*mmcv-*.whl'))
    if process.wait() != 0 or not wheels:
        print(''.join(tail), end='')
        stop(f'{requirement} could not be compiled; the last lines are above, all is in {log}.')
    with zipfile.ZipFile(wheels[0]) as archive:
        if not any(name.startswith('mmcv/_ext') for name in archive.namelist()):
            stop(f'{requirement} was built without its operators; the reason is in {log}.')
    return wheels[0]


def compiler_flags(python: Path, scratch: Path) -> tuple[str, bool]:
    """Return the flags to compile mmcv with, and compile the headers that all its files share.

    Half of the time goes into debug symbols, which nobody reads (``-g0``), and most of the rest
    into torch's headers, so GCC reads them from a precompiled header. Where that header does not
    fit a file's flags, GCC reads the plain one beside it: the objects are the same, only later.

    Args:
        python (Path): The environment's interpreter.
        scratch (Path): Folder for the header.

    Returns:
        tuple[str, bool]: The value of CFLAGS, and whether the headers were compiled in advance.
            They are not with Clang, which refuses a header of other flags, or for GPUs, whose
            compiler has flags of its own.
    """
    # CFLAGS takes the place of what Python itself was compiled with, so that stands in front.
    flags = f'{sysconfig.get_config_var("CFLAGS") or ""} -g0 -O2 {os.environ.get("CFLAGS", "")}'
    compiler = os.environ.get('CXX') or 'c++'
    if os.environ.get('FORCE_CUDA') == '1' or not is_gcc(compiler):
        return flags, False
    header = scratch / 'torch_headers.hpp'
    header.write_text(HEADERS)
    command = [
        *shlex.split(compiler),
        *extension_arguments(python, flags),
        '-std=c++17',
        '-x',
        'c++-header',
        header,
    ]
    say("compiling torch's headers, which all files of mmcv share")
    if not succeeds(*command, '-o', f'{header}.gch'):
        return flags, False
    return f'{flags} -include {shlex.quote(str(header))} -Winvalid-pch', True


def is_gcc(compiler: str) -> bool:
    """Whether a compiler is GCC; Clang calls itself g++ on some systems."""
    try:
        done = subprocess.run(
            [*shlex.split(compiler), '-dM', '-E', '-x', 'c++', os.devnull],
            capture_output=True,
            text=True,
        )
    except OSError:
        return False
    return '__GNUC__' in done.stdout and '__clang__' not in done.stdout


def extension_arguments(python: Path, flags: str) -> list[str]:
    """Return what setuptools and torch pass to the compiler of an extension, given CFLAGS."""
    program = (
        'import json, sysconfig\n'
        'from setuptools._distutils import ccompiler, sysconfig as build\n'
        'from torch.utils.cpp_extension import include_paths\n'
        'compiler = ccompiler.new_compiler()\n'
        'build.customize_compiler(compiler)\n'
        'paths = [*include_paths(), sysconfig.get_path("include")]\n'
        'print(json.dumps([*compiler.compiler_so[1:], *("-I" + path for path in paths)]))'
    )
    done = subprocess.run(
        [python, '-c', program],
        env={**os.environ, 'CFLAGS': flags},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def show_progress(lines: Iterator[str], log: Path, kept: int = 30) -> deque[str]:
    """Copy a build's output into a file and tell on one line how far ninja has come.

    Args:
        lines (Iterator[str]): The output; ninja's lines have ``[done/all]`` in front.
        log (Path): File to copy it into.
        kept (int): How many of the last lines to return. Defaults to 30.

    Returns:
        deque[str]: The last lines.
    """
    terminal = sys.stdout.isatty()
    tail: deque[str] = deque(maxlen=kept)
    start = last = time.monotonic()
    with log.open('w') as file:
        for line in lines:
            file.write(line)
            tail.append(line)
            step = re.match(r'\s*\[(\d+)/(\d+)\] ', line)
            now = time.monotonic()
            if step and (terminal or now - last > 20 or step[1] == step[2]):
                last = now
                done = f'[{step[1]}/{step[2]}] objects compiled, {(now - start) / 60:.1f} min'
                print(f'\r[setup] mmcv: {done}', end='' if terminal else '\n', flush=True)
                if not terminal:
                    file.flush()
    if terminal:
        print()
    return tail
