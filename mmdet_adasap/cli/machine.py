# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The device that a command runs on, its processes, and what a signal does to one."""

import json
import os
import signal
import sys
from pathlib import Path

from .arguments import called_as


def choose_device(asked: str | None, out: Path) -> tuple[str, str]:
    """Choose the device that models run on.

    Args:
        asked (str, optional): What the user asked for: 'cpu', 'cuda' or 'cuda:N'. Defaults to a
            GPU where there is one, or to the CPU where the results in ``out`` are from it.
        out (Path): Folder of the results.

    Returns:
        tuple[str, str]: The device as PyTorch takes it, and a line that says which it is and why.

    Raises:
        ValueError: If there is no such device here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # torchrun numbers the processes of a machine: each takes its own GPU.
    own = int(os.environ.get('LOCAL_RANK', 0))
    if asked is None:
        processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        if not gpus:
            return 'cpu', 'device cpu: PyTorch sees no GPU here'
        if _device_of_results(out) == 'cpu':
            return 'cpu', f'device cpu, as of the results in {out}; with another --out it is a GPU'
        if gpus < processes:
            return 'cpu', f'device cpu: {processes} processes, and {gpus} GPUs'
        return f'cuda:{own}', f'device cuda:{own}, {torch.cuda.get_device_name(own)}'
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ValueError(f'--device {asked}: there is none of that name; give cpu or cuda') from (
            error
        )
    if device.type != 'cuda':
        return asked, f'device {asked}'
    number = own if device.index is None else device.index
    if number >= gpus:
        known = f'only {", ".join(f"cuda:{i}" for i in range(gpus))}' if gpus else 'no GPU'
        raise ValueError(f'--device {asked}: PyTorch sees {known} here; give cpu, or leave it out')
    return f'cuda:{number}', f'device cuda:{number}, {torch.cuda.get_device_name(number)}'


def _device_of_results(out: Path) -> str | None:
    """Return the device that results in a folder are from; a run goes on with the same alone."""
    try:
        return json.loads((out / 'results.json').read_text())['protocol']['device']
    except (OSError, ValueError, KeyError, TypeError):  # none, or the run says what is wrong
        return None


def join_processes() -> bool:
    """Join the processes that torchrun has started, and return whether this one has rank 0."""
    from torch import distributed

    if not distributed.is_initialized():
        missing = {'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR'} - os.environ.keys()
        if missing:
            sys.exit(
                f'{called_as()}: --launcher pytorch needs {min(missing)} in the environment: '
                'start it with torchrun --nproc_per_node N tools/robustness.py ...'
            )
        # gloo works without a GPU. Only a few numbers for each image are exchanged.
        distributed.init_process_group('gloo')
    return distributed.get_rank() == 0


def treat_sigterm_as_interrupt() -> None:
    """Raise KeyboardInterrupt on SIGTERM, in this process; workers that it forks end as usual."""

    def handle(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    if hasattr(os, 'register_at_fork'):
        default = (signal.SIGTERM, signal.SIG_DFL)
        os.register_at_fork(after_in_child=lambda: signal.signal(*default))
