# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Set up `.venv` in this checkout: the pinned stack, mmcv compiled once, this project editable.

`make install` runs it, with a Python that tools/dev/find_python.sh has chosen. It runs before
anything is installed, so it uses the standard library alone. Every step can be repeated: after
an interruption the next call goes on, and one that finds all done ends at once.
"""

import argparse
import contextlib
import fcntl
import hashlib
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

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
VENV = ROOT / '.venv'
VENV_PYTHON = VENV / 'bin' / 'python'
# Says that the folder is ours, to be made anew when it cannot be mended.
MARKER = VENV / 'made-by-mmdet_adasap'
PIP = (VENV_PYTHON, '-m', 'pip', '--disable-pip-version-check', '--no-input')
# Looked for, without importing them, before a finished environment is believed to be one.
IMPORTED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')
IMPORTED += ('mmdet_adasap', 'pytest', 'ruff', 'importlinter')
# Minutes of one core for compiling mmcv, with its headers compiled in advance and without.
CORE_MINUTES = {True: 6, False: 18}
# Each of mmcv's files begins with these. Parsing them takes 9/10 of the time that a file takes.
HEADERS = '#include <torch/types.h>\n#include <vector>\n'


def say(text: str) -> None:
    print(f'[setup] {text}', flush=True)


def stop(text: str) -> None:
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


def stamp() -> Path:
    """The file that stands for a finished environment of exactly these requirements.

    The checkout's path is part of it, since the editable install points there.
    """
    digest = hashlib.sha256(f'{ROOT} {sys.version_info[:2]}'.encode())
    for path in [*sorted(REQUIREMENTS.glob('*.txt')), ROOT / 'setup.py', Path(__file__)]:
        digest.update(path.read_bytes())
    return VENV / f'complete-{digest.hexdigest()[:16]}'


def is_complete() -> bool:
    missing = 'any(importlib.util.find_spec(name) is None for name in sys.argv[1:])'
    # -I: the checkout itself is not on the path, so that the editable install is looked at.
    return stamp().exists() and succeeds(
        VENV_PYTHON, '-I', '-c', f'import importlib.util, sys; sys.exit({missing})', *IMPORTED
    )


def make_venv() -> None:
    """Make `.venv`, keep a sound one, mend one that was interrupted."""
    same_version = f'import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})'
    if not succeeds(VENV_PYTHON, '-c', same_version):
        if VENV.exists() and any(VENV.iterdir()):
            if not MARKER.exists():
                stop(
                    f'{VENV} is not an environment of Python {platform.python_version()} and was '
                    'not made by this Makefile: move it away, or name its Python with '
                    '`make install PYTHON=...`.'
                )
            say(f'.venv does not run Python {platform.python_version()}: making it anew')
            shutil.rmtree(VENV)
        VENV.mkdir(exist_ok=True)
        MARKER.touch()
        subprocess.run([sys.executable, '-m', 'venv', VENV], check=True)
    if not succeeds(VENV_PYTHON, '-m', 'pip', '--version'):
        subprocess.run([VENV_PYTHON, '-m', 'ensurepip', '--upgrade'], check=True)
    for info in VENV.glob('lib/python3*/site-packages/*.dist-info'):
        if not (info / 'RECORD').exists():  # pip writes it last: this install was interrupted
            shutil.rmtree(info)


def pip(*arguments: str | Path) -> None:
    """Run the environment's pip; end with its message if it fails."""
    if subprocess.run([*PIP, *arguments], cwd=ROOT).returncode != 0:
        stop('pip could not finish, see above. `make install` goes on where this one stopped.')


def pinned(package: str, file: str) -> str:
    """The version that a requirements file pins."""
    text = (REQUIREMENTS / file).read_text()
    return re.search(rf'^{re.escape(package)}==(\S+)', text, re.MULTILINE).group(1)


def wheel_folder() -> Path:
    """Where the compiled mmcv is kept: one folder for each torch, Python and machine type."""
    root = os.environ.get('MMDET_ADASAP_CACHE')
    if not root:
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        root = Path(cache) / 'mmdet_adasap'
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    name = f'torch{pinned("torch", "torch.txt")}-{python}-{platform.machine()}'
    if os.environ.get('FORCE_CUDA') == '1':
        name += '-cuda'
    folder = Path(root).expanduser().absolute() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        stop(f'Cannot keep the compiled mmcv in {folder}: {error}. Set MMDET_ADASAP_CACHE.')
    return folder


def mmcv_wheel() -> Path:
    """Find the compiled mmcv in the cache folder, or compile it into it."""
    version = pinned('onedl-mmcv', 'mmcv.txt')
    folder = wheel_folder()
    with locked(folder, f'waiting for another compilation of mmcv into {folder}'):
        wheels = sorted(folder.glob(f'onedl_mmcv-{version}-*.whl'))
        if wheels:
            say(f'mmcv {version}: compiled before, from {wheels[-1]}')
            return wheels[-1]
        for left in folder.glob('compiling-*'):  # of a call that was killed: we hold the lock
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(prefix='compiling-', dir=folder) as scratch:
            wheel = compile_mmcv(version, Path(scratch), folder / f'mmcv-{version}.log')
            # A rename is all or nothing: what lies in the cache is whole.
            return wheel.rename(folder / wheel.name)


def compile_mmcv(version: str, out: Path, log: Path) -> Path:
    """Compile mmcv's wheel with its operators, showing the progress.

    Args:
        version (str): The version to compile.
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
    flags, has_headers = compiler_flags(out)
    minutes = max(1, round(CORE_MINUTES[has_headers] / jobs))
    say(f'mmcv {version}: compiling, once, about {minutes} min with {jobs} jobs; log: {log}')
    environment = {
        **os.environ,
        # ninja and the compiler's neighbours are in the environment, not on the user's path.
        'PATH': f'{VENV_PYTHON.parent}{os.pathsep}{os.environ.get("PATH", os.defpath)}',
        'MAX_JOBS': str(jobs),
        'MMCV_WITH_OPS': '1',
        # Old and new releases of setuptools take the flags for C++ from different ones.
        'CFLAGS': flags,
        'CXXFLAGS': flags,
    }
    if os.environ.get('FORCE_CUDA') != '1':
        # mmcv compiles for a GPU whenever it sees one, and fails where there is no nvcc.
        environment['CUDA_VISIBLE_DEVICES'] = ''
    # --no-cache-dir: pip's own cache does not know which torch a wheel was compiled for.
    command = [*PIP, 'wheel', '-v', '--no-deps', '--no-build-isolation', '--no-cache-dir']
    command += ['--wheel-dir', out, f'onedl-mmcv=={version}']
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
    wheels = list(out.glob('onedl_mmcv-*.whl'))
    if process.wait() != 0 or not wheels:
        print(''.join(tail), end='')
        stop(f'mmcv {version} could not be compiled; the last lines are above, all is in {log}.')
    with zipfile.ZipFile(wheels[0]) as archive:
        if not any(name.startswith('mmcv/_ext') for name in archive.namelist()):
            stop(f'mmcv {version} was built without its operators; the reason is in {log}.')
    return wheels[0]


def compiler_flags(scratch: Path) -> tuple[str, bool]:
    """Return the flags to compile mmcv with, and compile the headers that all its files share.

    Half of the time goes into debug symbols, which nobody reads (``-g0``), and most of the rest
    into torch's headers, so GCC reads them from a precompiled header. Where that header does not
    fit a file's flags, GCC reads the plain one beside it: the objects are the same, only later.

    Args:
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
        *extension_arguments(flags),
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


def extension_arguments(flags: str) -> list[str]:
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
        [VENV_PYTHON, '-c', program],
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


def install() -> None:
    """Bring `.venv` from whatever state it is in to the pinned one."""
    say(f'setting up {VENV} with Python {platform.python_version()}')
    make_venv()
    for old in VENV.glob('complete-*'):
        old.unlink()
    say('tools to build with')
    pip('install', '-q', '-r', REQUIREMENTS / 'build.txt')
    say(f'torch {pinned("torch", "torch.txt")} and torchvision: minutes, 5 GB on the disk')
    # runtime.txt as constraints, so that numpy and Pillow are not installed twice. The progress
    # bar of so large a download is worth its lines on a terminal, not in a log.
    quiet = () if sys.stdout.isatty() else ('-q',)
    pip('install', *quiet, '-r', REQUIREMENTS / 'torch.txt', '-c', REQUIREMENTS / 'runtime.txt')
    wheel = mmcv_wheel()
    say('run-time, test and lint packages')
    no_deps = ('install', '-q', '--no-deps')
    files = [REQUIREMENTS / f'{name}.txt' for name in ('runtime', 'tests', 'lint')]
    pip(*no_deps, *(part for file in files for part in ('-r', file)))
    say('mmengine, mmcv, mmdet, mmpretrain and this project')
    pip(*no_deps, wheel)
    pip(*no_deps, '--no-build-isolation', '-r', REQUIREMENTS / 'onedl.txt')
    pip(*no_deps, '--no-build-isolation', '-e', ROOT)
    if subprocess.run([VENV_PYTHON, '-m', 'mmdet_adasap.env'], cwd=ROOT).returncode != 0:
        stop('The environment is there, but not sound: see above.')
    stamp().touch()


def main() -> None:
    """Set the checkout up, unless that is done already."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if VENV.is_symlink():
        stop(f'{VENV} is a link, and what it leads to would be changed: remove the link.')
    if sys.version_info[:2] not in ((3, 10), (3, 11), (3, 12)):
        stop(f'Python 3.10, 3.11 or 3.12 is needed, this is {platform.python_version()}.')
    if is_complete():
        return
    with locked(ROOT, 'waiting for another setup of this checkout'):
        if not is_complete():
            start = time.monotonic()
            install()
            say(f'done in {(time.monotonic() - start) / 60:.1f} min')


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        stop('Interrupted. `make install` goes on from here.')
