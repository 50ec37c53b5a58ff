# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The processes of a distributed run: they fail together, decide alike, and wrap the cut model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from mmengine.dist import all_gather_object, broadcast_object_list, get_world_size
from mmengine.model import BaseTTAModel, MMSeparateDistributedDataParallel, is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import OtherProcessError, ProcessMismatchError

Value = TypeVar('Value')


@contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Let an error in one process end all of them, which would otherwise wait for it for ever.

    The block is computed as if there were no other processes: the one that fails would be
    missing where SyncBN, or a loss that averages its counts, waits for it.

    Raises:
        OtherProcessError: In the processes that have no error of their own.
    """
    if get_world_size() == 1:
        yield
        return
    failure = None
    try:
        with _alone():
            yield
    except Exception as error:
        failure = error
    reports = all_gather_object(failure and f'{type(failure).__name__}: {failure}')
    if failure is not None:
        raise failure
    for rank, report in enumerate(reports):
        if report is not None:
            raise OtherProcessError(f'rank {rank} has stopped with {report}')


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch, mmengine and mmdet see a single process.

    All three ask the same function, and none offers a switch; with one, this patch can go.
    """
    is_initialized = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = is_initialized


def broadcast_from_rank_0(value: Value) -> Value:
    """Return in every process what rank 0 has.

    Args:
        value (Value): Anything that can be pickled; read in rank 0 alone.
    """
    box = [value]  # broadcast_object_list works in place
    broadcast_object_list(box)
    return box[0]


def check_same_on_all_ranks(name: str, digest: str) -> None:
    """Raise ProcessMismatchError if a digest is not the same in all processes.

    Args:
        name (str): The name of what it is of, in the plural, for the message.
        digest (str): That of this process.

    Raises:
        ProcessMismatchError: Naming the ranks that differ from rank 0.
    """
    found = all_gather_object((name, digest))
    # A process that is in another phase comes here with another name.
    for rank, (other, _) in enumerate(found):
        if other != found[0][0]:
            raise ProcessMismatchError(
                f'rank 0 compares {found[0][0]} and rank {rank} {other}; start all processes with '
                f'the same config and work_dir, and with files that all of them see'
            )
    digests = [other for _, other in found]
    others = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if others:
        raise ProcessMismatchError(
            f'{name} of rank 0 and of rank {", ".join(map(str, others))} are not the same '
            f'({digests[0]} and {digests[others[0]]}); start all processes with the same config, '
            f'checkpoint, code and first validation image'
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model that weights are of, from inside the wrappers that mmengine looks into.

    These are distributed ones, and those of test-time augmentation (``test.py --tta``).
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_wrapper(runner: Runner) -> None:
    """Raise ValueError if a run has several processes and a wrapper that cannot follow a cut.

    Raises:
        ValueError: Naming the key to change.
    """
    model = runner.model
    if not is_model_wrapper(model):
        if get_world_size() > 1:
            raise ValueError(
                f'launcher={runner.launcher!r}: {get_world_size()} processes run, and each would '
                f'train a model of its own; start train.py with --launcher pytorch'
            )
        return
    name = type(model).__name__
    # The separate one, for GANs, wraps each child on its own; FSDP splits tensors between ranks.
    parallel = isinstance(model, DistributedDataParallel)
    if not parallel or isinstance(model, MMSeparateDistributedDataParallel):
        raise ValueError(
            f'model_wrapper_cfg: AdaSAPHook cuts the model in MMDistributedDataParallel or a '
            f'wrapper derived from it, and this run has {name}; leave out model_wrapper_cfg.type '
            f'(and the strategy of a FlexibleRunner)'
        )
    type_ = (runner.cfg.get('model_wrapper_cfg') or {}).get('type', 'MMDistributedDataParallel')
    expected = MODEL_WRAPPERS.get(type_) if isinstance(type_, str) else type_
    if not runner.distributed or type(model) is not expected:
        raise ValueError(
            f'launcher={runner.launcher!r}: the model came to the Runner in {name} already, which '
            f'has to be made anew after the cut; give the Runner the bare model, a launcher, and '
            f'model_wrapper_cfg for settings of the wrapper'
        )


def rewrap_model(runner: Runner) -> None:
    """Give a model that was cut a new distributed wrapper, as the Runner made the old one.

    The buckets of the old one, in which gradients are averaged, have the shapes before the cut.
    To be called in every process.
    """
    old = runner.model
    if not isinstance(old, DistributedDataParallel):
        return
    # wrap_model would convert the batch norm layers again, which it did when the Runner was built.
    sync_bn = runner.cfg.get('sync_bn')
    if sync_bn is not None:
        runner.cfg.sync_bn = None
    try:
        runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), old.module)
    finally:
        if sync_bn is not None:
            runner.cfg.sync_bn = sync_bn
    # Not train(), which would reach into the model and thaw what its stages have frozen.
    runner.model.training = old.training
    # Some hooks keep the model that before_run showed them.
    for hook in runner.hooks:
        for key, value in vars(hook).items():
            if value is old:
                setattr(hook, key, runner.model)
