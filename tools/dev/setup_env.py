# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Set up an environment in this checkout: pinned packages, mmcv compiled once, this project.

`make install` makes `.venv` with OneDL's packages, the default; `make install-original` makes
`.venv-original` with those that OpenMMLab published. Both run this, with a Python that
tools/dev/find_python.sh has chosen, before anything is installed, so that it uses the standard
library alone. Every step can be repeated: after an interruption the next call goes on, and one
that finds all done ends at once.
"""

import argparse
import dataclasses
import hashlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmcv_wheel import locked, mmcv_wheel, say, stop, succeeds

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements'
# Looked for, without importing them, before a finished environment is believed to be one.
IMPORTED = ('torch', 'torchvision', 'cv2', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain')
IMPORTED += ('mmdet_adasap', 'pytest')


@dataclasses.dataclass(frozen=True)
class Stack:
    """A set of pinned packages, and the environment that holds them.

    Args:
        venv (Path): The environment's folder.
        mmcv (str): The distribution of mmcv, which is compiled.
        openmmlab (tuple[str]): The distributions of mmengine, mmdet and mmpretrain.
        pythons (tuple[tuple[int]]): Versions of Python that torch has builds for.
        overrides (str): A file of requirements that take the place of those of the same name in
            the other files; '' for none.
        files (tuple[str]): Files of what is installed beside the original packages.
        target (str): The target of the Makefile.
        torch (str): Another version of torch than the files have; '' for theirs.
    """

    venv: Path
    mmcv: str
    openmmlab: tuple[str, ...]
    pythons: tuple[tuple[int, int], ...]
    overrides: str
    files: tuple[str, ...]
    target: str
    torch: str = ''

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / 'bin' / 'python'

    @property
    def marker(self) -> Path:
        """Says that the folder is ours, to be made anew when it cannot be mended."""
        return self.venv / 'made-by-mmdet_adasap'

    @property
    def stamp(self) -> Path:
        """The file that stands for a finished environment of exactly these requirements.

        The checkout's path is part of it, since the editable install points there.
        """
        digest = hashlib.sha256(f'{ROOT} {sys.version_info[:2]}'.encode())
        sources = [ROOT / 'setup.py', Path(__file__), Path(__file__).with_name('mmcv_wheel.py')]
        for path in [*sorted(REQUIREMENTS.glob('*.txt')), *sources]:
            digest.update(path.read_bytes())
        return self.venv / f'complete-{digest.hexdigest()[:16]}'

    def requirements(self, *files: str) -> list[str]:
        """What files of requirements ask for, with the overrides."""
        lines = [line for file in files for line in read(file)]
        instead = {name_of(line): line for line in read(self.overrides)} if self.overrides else {}
        return [instead.get(name_of(line), line) for line in lines]

    def pinned(self, *names: str) -> list[str]:
        """The requirements of packages, from whichever file has them."""
        files = [path for path in REQUIREMENTS.glob('*.txt') if path.name != ORIGINAL.overrides]
        files += [self.overrides] if self.overrides else []
        every = {name_of(line): line for file in files for line in read(file)}
        if self.torch:
            # torchvision 0.16 is for torch 2.1, 0.17 for 2.2 and so on, with its patch level.
            minor, patch = self.torch.split('.')[1:]
            every['torch'] = f'torch=={self.torch}'
            every['torchvision'] = f'torchvision==0.{int(minor) + 15}.{patch}'
        return [every[name] for name in names]


DEFAULT = Stack(
    venv=ROOT / '.venv',
    mmcv='onedl-mmcv',
    openmmlab=('onedl-mmengine', 'onedl-mmdetection', 'onedl-mmpretrain'),
    pythons=((3, 10), (3, 11), (3, 12)),
    overrides='',
    files=('runtime.txt', 'export.txt', 'tests.txt', 'lint.txt'),
    target='install',
)
ORIGINAL = Stack(
    venv=ROOT / '.venv-original',
    mmcv='mmcv',
    openmmlab=('mmengine', 'mmdet', 'mmpretrain'),
    pythons=((3, 10), (3, 11)),
    overrides='original.txt',
    files=('runtime.txt', 'tests.txt'),
    target='install-original',
)
STACKS = {'default': DEFAULT, 'original': ORIGINAL}


def read(file: str | Path) -> list[str]:
    """The requirements in a file, without comments."""
    lines = (REQUIREMENTS / file).read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


def name_of(requirement: str) -> str:
    """The package that a requirement asks for."""
    return re.match(r'[\w.-]+', requirement)[0].lower().replace('_', '-')


def is_complete(stack: Stack) -> bool:
    missing = 'any(importlib.util.find_spec(name) is None for name in sys.argv[1:])'
    # -I: the checkout itself is not on the path, so that the editable install is looked at.
    return stack.stamp.exists() and succeeds(
        stack.python, '-I', '-c', f'import importlib.util, sys; sys.exit({missing})', *IMPORTED
    )


def make_venv(stack: Stack) -> None:
    """Make the environment, keep a sound one, mend one that was interrupted."""
    venv = stack.venv
    same_version = f'import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})'
    if not succeeds(stack.python, '-c', same_version):
        if venv.exists() and any(venv.iterdir()):
            if not stack.marker.exists():
                stop(
                    f'{venv} is not an environment of Python {platform.python_version()} and was '
                    'not made by this Makefile: move it away, or name its Python with '
                    f'`make {stack.target} PYTHON=...`.'
                )
            say(f'{venv.name} does not run Python {platform.python_version()}: making it anew')
            shutil.rmtree(venv)
        venv.mkdir(exist_ok=True)
        stack.marker.touch()
        subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
    if not succeeds(stack.python, '-m', 'pip', '--version'):
        subprocess.run([stack.python, '-m', 'ensurepip', '--upgrade'], check=True)
    for info in venv.glob('lib/python3*/site-packages/*.dist-info'):
        if not (info / 'RECORD').exists():  # pip writes it last: this install was interrupted
            shutil.rmtree(info)


def pip(stack: Stack, *arguments: str | Path) -> None:
    """Run the environment's pip; end with its message if it fails."""
    command = [stack.python, '-m', 'pip', '--disable-pip-version-check', '--no-input', *arguments]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        stop(
            f'pip could not finish, see above. `make {stack.target}` goes on where this one '
            'stopped.'
        )


def install(stack: Stack) -> None:
    """Bring the environment from whatever state it is in to the pinned one."""
    say(f'setting up {stack.venv} with Python {platform.python_version()}')
    make_venv(stack)
    for old in stack.venv.glob('complete-*'):
        old.unlink()
    say('tools to build with')
    pip(stack, 'install', '-q', *stack.requirements('build.txt'))
    torch, torchvision, numpy, pillow = stack.pinned('torch', 'torchvision', 'numpy', 'pillow')
    say(f'{torch} and torchvision: minutes, 5 GB on the disk')
    # numpy and Pillow with them, so that those are not installed twice. The progress bar of so
    # large a download is worth its lines on a terminal, not in a log.
    quiet = () if sys.stdout.isatty() else ('-q',)
    pip(stack, 'install', *quiet, torch, torchvision, numpy, pillow)
    wheel = mmcv_wheel(*stack.pinned(stack.mmcv), torch.partition('==')[2], stack.python)
    say('run-time, test and lint packages' if 'lint.txt' in stack.files else 'other packages')
    no_deps = ('install', '-q', '--no-deps')
    pip(stack, *no_deps, *stack.requirements(*stack.files))
    say('mmengine, mmcv, mmdet, mmpretrain and this project')
    pip(stack, *no_deps, wheel)
    pip(stack, *no_deps, '--no-build-isolation', *stack.pinned(*stack.openmmlab))
    pip(stack, *no_deps, '--no-build-isolation', '-e', ROOT)
    if stack is DEFAULT:
        # In front of the default packages, these stand for what most users have.
        say('original mmengine and numpy 1, for one test')
        where = ('--upgrade', '--target', stack.venv / 'original-lite')
        light = ORIGINAL.pinned('numpy', 'mmengine', 'mmcv-lite')
        pip(stack, *no_deps, '--no-build-isolation', *where, *light)
    if subprocess.run([stack.python, '-m', 'mmdet_adasap.env'], cwd=ROOT).returncode != 0:
        stop('The environment is there, but not sound: see above.')
    stack.stamp.touch()


def main() -> None:
    """Set the checkout up, unless that is done already."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--stack', choices=STACKS, default='default', help='which packages (default: default)'
    )
    parser.add_argument(
        '--torch',
        metavar='2.N.N',
        help='with --stack original: another torch than 2.1, in an environment of its own',
    )
    args = parser.parse_args()
    stack = STACKS[args.stack]
    if args.torch:
        if stack is not ORIGINAL or not re.fullmatch(r'2\.\d+\.\d+', args.torch):
            parser.error(f'--torch {args.torch}: give --stack original and a version as 2.6.0')
        venv = ROOT / f'.venv-original-torch{args.torch}'
        stack = dataclasses.replace(stack, venv=venv, torch=args.torch)
    if stack.venv.is_symlink():
        stop(f'{stack.venv} is a link, and what it leads to would be changed: remove the link.')
    if sys.version_info[:2] not in stack.pythons:
        *most, last = (f'{major}.{minor}' for major, minor in stack.pythons)
        stop(
            f'Python {", ".join(most)} or {last} is needed, this is {platform.python_version()}: '
            f'`make {stack.target} PYTHON=python3.11`.'
        )
    if is_complete(stack):
        return
    with locked(ROOT, 'waiting for another setup of this checkout'):
        if not is_complete(stack):
            start = time.monotonic()
            install(stack)
            say(f'done in {(time.monotonic() - start) / 60:.1f} min')


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        stop('Interrupted. The same call goes on from here.')
