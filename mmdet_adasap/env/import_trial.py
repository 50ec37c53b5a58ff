# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Import packages in a process of their own, and tell what came of it.

A compiled library that does not fit the others may end the process that imports it, or hang. This
file is run as a program as well, so it needs the standard library alone, and imports nothing of
the package: ``import mmdet_adasap`` watches the imports of others.
"""

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec

LIMIT = 300
"""Seconds. From a cold disk in a network torch alone may take more than a minute."""
LONGEST_ERROR = 400
"""Characters of an error. numpy's and torch's advice on a failed import would fill the screen."""
PACKAGE = 'mmdet_adasap'


@dataclass
class ImportResults:
    """What came of some imports.

    Args:
        errors (dict[str, str]): What each import raised, '' if nothing. Those that were not
            reached are not in it.
        gpus (list[str]): Names of the GPUs that torch sees.
        mmcv_cuda (str): The CUDA that mmcv's operators were compiled for, 'not available' if
            for none; '' where there are no operators.
        ssd_mended (bool): Whether importing the package mended mmdet's SSDHead.
    """

    errors: dict[str, str] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)
    mmcv_cuda: str = ''
    ssd_mended: bool = False


def try_imports(names: list[str], limit: float = LIMIT) -> ImportResults:
    """Import modules one after the other in another process, and then look at what is there.

    Args:
        names (list[str]): Modules, in this order. ``mmdet_adasap`` stands for all of it: its
            modules, and what it registers with each library that is installed.
        limit (float): Seconds for all of them. Defaults to :data:`LIMIT`.

    Returns:
        ImportResults: What came of it. A module that ends the process or that takes too long is
        the last one in ``errors``.
    """
    # The child finds what this process finds, also if that was started with -S or changed its
    # path. Editable installs may have hooks instead of folders; `site` sets those up in the child.
    options = ['-S'] if sys.flags.no_site else []
    request = json.dumps([names, [str(folder) for folder in sys.path]])
    child = [sys.executable, *options, '-W', 'ignore', __file__, request]
    try:
        done = subprocess.run(child, capture_output=True, stdin=subprocess.DEVNULL, timeout=limit)
        output, noise, ended = done.stdout, done.stderr, _ended(done.returncode)
    except subprocess.TimeoutExpired as error:
        output, noise = error.stdout, b''
        ended = f'it was not done after {limit:g} s'
    results = ImportResults()
    for line in (output or b'').decode(errors='replace').splitlines():
        kind, key, value = json.loads(line)
        if kind == 'error':
            results.errors[key] = value
        else:
            setattr(results, key, value)
    unreached = [name for name in names if name not in results.errors]
    if unreached:
        # What aborts says why; before other signals the last line is any noise.
        last = noise.decode(errors='replace').strip().splitlines()[-1:] if 'ABRT' in ended else []
        # A module that ends Python with status 0 has not been imported either.
        text = ': '.join([ended or 'it ended Python with status 0', *last])
        results.errors[unreached[0]] = text[:LONGEST_ERROR]
    return results


def _ended(code: int) -> str:
    """Say how a process ended; '' if it ended as it should."""
    if code >= 0:
        return f'it ended Python with status {code}' if code else ''
    try:
        return f'it ended Python with {signal.Signals(-code).name}'
    except ValueError:  # real-time signals have no names
        return f'it ended Python with signal {-code}'


def describe(error: BaseException) -> str:
    """Return an exception as the last line of its traceback, with all that it says on one line."""
    text = ' '.join(str(error).split())
    if len(text) > LONGEST_ERROR:
        text = f'{text[: LONGEST_ERROR // 2]} ... {text[-LONGEST_ERROR // 2 :]}'
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def import_package() -> None:
    """Import all modules of this package, and the libraries that it registers something with.

    That is what ``custom_imports`` and train.py do, and what the commands do later.

    Raises:
        Exception: What any of them raises.
    """
    package = importlib.import_module(PACKAGE)
    libraries = importlib.import_module(f'{PACKAGE}.registration').PARTS
    absent = {name.partition('.')[0] for name in libraries}
    absent = {name for name in absent if find_spec(name) is None}
    for library in libraries:
        if library.partition('.')[0] not in absent:
            importlib.import_module(library)
    optional = absent & {'mmdet', 'mmpretrain'}
    for module in pkgutil.walk_packages(package.__path__, f'{PACKAGE}.'):
        if module.name.endswith('.__main__'):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            # Data sets of mmdet need mmdet; whoever trains classifiers alone has none.
            if (error.name or '').partition('.')[0] not in optional:
                raise


def _child(names: list[str], path: list[str]) -> None:
    """Do the imports and write what comes of each, on a line, at once."""
    # What a library prints, from C as well, must not come between our lines.
    out = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    sys.path[:] = path

    def write(kind: str, key: str, value: object) -> None:
        out.write(f'{json.dumps([kind, key, value])}\n')

    def attempt(name: str) -> None:
        error = ''
        try:
            import_package() if name == PACKAGE else importlib.import_module(name)
        except (Exception, SystemExit) as raised:  # version checks and binaries raise all kinds
            error = describe(raised)
        write('error', name, error)

    for name in names:
        attempt(name)
    for key, value in _facts().items():
        write('fact', key, value)


def _facts() -> dict[str, object]:
    """Ask the modules that are imported by now."""
    facts = {}
    torch, ops = sys.modules.get('torch'), sys.modules.get('mmcv.ops')
    if hasattr(torch, 'cuda') and torch.cuda.is_available():
        count = torch.cuda.device_count()
        facts['gpus'] = [torch.cuda.get_device_name(index) for index in range(count)]
    if hasattr(ops, 'get_compiling_cuda_version'):
        facts['mmcv_cuda'] = ops.get_compiling_cuda_version()
    compat = sys.modules.get(f'{PACKAGE}.integration')
    if 'mmdet.models.dense_heads' in sys.modules and hasattr(compat, 'ssd_head_is_mended'):
        facts['ssd_mended'] = compat.ssd_head_is_mended()
    return facts


if __name__ == '__main__':
    _child(*json.loads(sys.argv[1]))
