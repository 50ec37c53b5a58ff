# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Train or test with mmdet's own tools in several processes on a CPU.

On GPUs mmdet's dist_train.sh does that, and nothing of this is needed. On a CPU mmengine's start
of a distributed run asks for a GPU; here the processes talk through gloo instead, and the model is
wrapped in MMDistributedDataParallel as ever. batch_size is that of one process. Two processes of
8 images train as one of 16 does where the head averages over processes (YOLOX, FCOS, ATSS) and
batch norm is frozen; SyncBN works on GPUs alone.

Ctrl-C, or an error in one process, ends all of them; the last line says which one failed, and of
what. Lines of all processes but the first begin with their rank.

examples:
  python tools/dist_cpu.py 2 train configs/demo/adasap_yolox_tiny-voc.py --work-dir work_dirs/two
  python tools/dist_cpu.py 2 train CONFIG --resume
  python tools/dist_cpu.py 2 test CONFIG work_dirs/two/epoch_37.pth
  torchrun --nproc_per_node 2 tools/dist_cpu.py train CONFIG     (torchrun starts the processes)
"""

import argparse
import contextlib
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time

PATIENCE = 10
"""Seconds that processes get to end before they are killed."""


def parse_args(started: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if not started:
        parser.add_argument('processes', type=at_least_1, help='how many, 1 or more')
    parser.add_argument('tool', help="mmdet's script: train, test, or the path of another one")
    parser.add_argument('args', nargs=argparse.REMAINDER, help='arguments of that script')
    return parser.parse_args()


def at_least_1(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of processes, as 2')
    return int(text)


def main() -> int:
    started = {'RANK', 'WORLD_SIZE', 'LOCAL_RANK'} <= os.environ.keys()
    args = parse_args(started)
    if started:
        # Ctrl-C reaches every process of a terminal; the one that started this one ends it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        run_tool(args.tool, args.args)
        return 0
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    return start(args.processes)


# One process of several


def run_tool(tool: str, args: list[str]) -> None:
    """Run a script of mmdet in a process that has its rank in the environment."""
    from torch import distributed

    script = tool if os.path.isfile(tool) else tool_of_mmdet(tool)
    stay_on_cpu()
    # mmengine takes a group that is there already and asks for no GPU then.
    distributed.init_process_group('gloo')
    sys.argv = [script, *args, '--launcher', 'pytorch']
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name='__main__')
    distributed.destroy_process_group()


def tool_of_mmdet(name: str) -> str:
    from mmdet_adasap.env import find_tool

    try:
        return str(find_tool(name))
    except FileNotFoundError as error:
        sys.exit(f'{error} Give its path instead.')


def stay_on_cpu() -> None:
    """Leave out the number of the GPU, which mmengine gives to every distributed wrapper."""
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    from torch.nn.parallel import DistributedDataParallel

    wrap = DistributedDataParallel.__init__

    def without_device(self, module, device_ids=None, *args, **kwargs) -> None:
        wrap(self, module, None, *args, **kwargs)

    DistributedDataParallel.__init__ = without_device


# All of them


def start(count: int) -> int:
    """Run this script as ``count`` processes.

    Returns:
        int: The exit status: that of the process that failed first, or 0.
    """
    processes, last_lines, readers = [], [''] * count, []
    try:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        for rank in range(count):
            process = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), *sys.argv[2:]],
                env=environment(rank, count, port),
                stderr=subprocess.PIPE,
                text=True,
                errors='replace',
            )
            processes.append(process)
            reader = threading.Thread(target=forward, args=(process, rank, last_lines))
            reader.start()
            readers.append(reader)
        failed = wait(processes)
    except KeyboardInterrupt:
        failed = None
        last_lines = None
    finally:
        end(processes)
        for reader in readers:
            reader.join(timeout=PATIENCE)
    if last_lines is None:
        print('dist_cpu: interrupted, all processes have ended', file=sys.stderr)
        return 130
    if failed is None:
        return 0
    status = processes[failed].returncode
    why = last_lines[failed] if status > 0 else f'killed by {signal.Signals(-status).name}'
    print(f'dist_cpu: rank {failed} of {count} failed: {why}', file=sys.stderr)
    return status if status > 0 else 128 - status


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    here = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=count, LOCAL_WORLD_SIZE=count)
    where = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    given = {key: str(value) for key, value in {**here, **where}.items()}
    # As torchrun does: every process would take all cores else.
    return {'OMP_NUM_THREADS': '1', **os.environ, **given}


def forward(process: subprocess.Popen, rank: int, last_lines: list[str]) -> None:
    """Pass on what a process writes to stderr, and remember its last line."""
    for line in process.stderr:
        line = re.sub(r'^\[rank\d+\]: ?', '', line)  # torch says it in tracebacks alone
        if line.strip():
            last_lines[rank] = line.strip()
        sys.stderr.write(f'[rank {rank}] {line}' if rank else line)


def wait(processes: list[subprocess.Popen]) -> int | None:
    """Wait until all have ended or one has failed, and say which."""
    while True:
        statuses = [process.poll() for process in processes]
        for rank, status in enumerate(statuses):
            if status:
                return rank
        if None not in statuses:
            return None
        time.sleep(0.1)


def end(processes: list[subprocess.Popen]) -> None:
    """End the processes that are still there."""
    for send in ('terminate', 'kill'):
        for process in processes:
            if process.poll() is None:
                getattr(process, send)()
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))


if __name__ == '__main__':
    sys.exit(main())
