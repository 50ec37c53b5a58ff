# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Runs of the toy model in several gloo processes on a CPU."""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import distributed, nn

import mmdet_adasap  # noqa: F401
from _utils.toy import ToyModel, loader
from _utils.toy import settings as toy_settings

PATIENCE = 120
"""Seconds after which processes that have not ended count as hanging."""

# A process that has imported everything and computed nothing is safe and quick to fork.
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['_utils.processes'])


class FailedError(RuntimeError):
    """What went wrong in which rank, as ``.errors[rank]``, '' where nothing did."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__('\n'.join(f'rank {i}: {e}' for i, e in enumerate(errors) if e))
        self.errors = errors


def in_processes(work: Callable, folder: Path, *args: object, count: int = 2) -> list:
    """What ``work(*args)``, a function of a module, returns in each of several gloo processes."""
    folder.mkdir(parents=True, exist_ok=True)
    # Python 3.11 does not tell the server where to import from.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    port = free_port()
    started = [
        CONTEXT.Process(target=_one, args=(rank, count, port, folder, work, args), daemon=True)
        for rank in range(count)
    ]
    for process in started:
        process.start()
    deadline = time.monotonic() + PATIENCE
    for process in started:
        process.join(max(0.0, deadline - time.monotonic()))
    hanging = [rank for rank, process in enumerate(started) if process.is_alive()]
    for process in started:
        process.kill()
    assert not hanging, f'ranks {hanging} hang'
    files = [folder / f'result_{rank}.pt' for rank in range(count)]
    results = [torch.load(f, weights_only=False) if f.exists() else None for f in files]
    for file in files:
        file.unlink(missing_ok=True)
    errors = [
        f'ended with {process.exitcode}' if result is None else result['error']
        for process, result in zip(started, results, strict=True)
    ]
    if any(errors):
        raise FailedError(errors)
    return [result['value'] for result in results]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def join_group(rank: int, count: int, port: int) -> None:
    """Make this process one of several."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    distributed.init_process_group('gloo')


def _one(rank: int, count: int, port: int, folder: Path, work: Callable, args: tuple) -> None:
    join_group(rank, count, port)
    result = dict(value=None, error='')
    try:
        result['value'] = work(*args)
    except Exception as error:
        traceback.print_exc()
        result['error'] = f'{type(error).__name__}: {error}'
    torch.save(result, folder / f'result_{rank}.pt')
    # Not the ordinary end, which would wait for ranks that have failed.
    os._exit(0)


class FrozenNormModel(ToyModel):
    """The toy model with batch norm in eval mode, so that images do not see each other."""

    def train(self, mode: bool = True) -> BaseModel:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def settings(work_dir: Path, hook: dict | None = None, batch: int = 2, **kwargs) -> dict:
    """That of the toy at a constant rate, with ``batch`` images a process."""
    cfg = toy_settings(work_dir, hook, train_dataloader=loader(batch_size=batch))
    del cfg['param_scheduler']
    cfg['val_evaluator'] = dict(type='MeanLogit')
    cfg['default_hooks'] |= dict(
        logger=dict(type='LoggerHook', interval=6),
        checkpoint=dict(type='AtomicCheckpointHook', interval=1),
    )
    return cfg | dict(log_level='ERROR') | kwargs


def build(cfg: dict, model: type[ToyModel] = FrozenNormModel) -> Runner:
    """A Runner in however many processes there are."""
    from _utils.toy import MeanLogit

    DefaultScope._instance_dict.clear()
    torch.manual_seed(0)
    cfg = {**cfg, 'val_evaluator': dict(type=MeanLogit)}
    cfg['experiment_name'] = f'{Path(cfg["work_dir"]).name}_{time.monotonic_ns()}'
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    wrapper.update(cfg.pop('model_wrapper_cfg', {}))
    if distributed.is_initialized():
        cfg.update(launcher='pytorch', cfg=dict(model_wrapper_cfg=wrapper))
    return Runner(model=model(), **cfg)
