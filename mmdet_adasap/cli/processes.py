# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The processes of a command: those that torchrun has started, and what a signal does to one."""

import os
import signal
import sys

from .arguments import called_as


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
