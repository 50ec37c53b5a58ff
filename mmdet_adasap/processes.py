# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What keeps the processes of a distributed run together: one end, one choice, one shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from mmengine.dist import all_gather_object, broadcast_object_list, get_world_size
from torch import distributed

Value = TypeVar('Value')


class OtherProcessFailed(RuntimeError):
    """Raised in the processes that were all right when another one was not."""


class ProcessesDiffer(RuntimeError):
    """Raised when processes would train models of different shapes."""


@contextmanager
def failing_together() -> Iterator[None]:
    """Let an error in one process end all of them, which would wait for it for ever.

    What is inside is computed as if there were no other processes: the one that fails would be
    missing where SyncBN, or a loss that averages its counts, waits for it.

    Raises:
        OtherProcessFailed: In the processes that have no error of their own.
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
            raise OtherProcessFailed(f'rank {rank} has stopped with {report}')


@contextmanager
def _alone() -> Iterator[None]:
    """Let torch, mmengine and mmdet, which all ask the same function, see a single process."""
    is_initialized = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = is_initialized


def from_rank_0(value: Value) -> Value:
    """What rank 0 has for ``value``, in every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]


def check_same(what: str, digest: str) -> None:
    """Compare a digest over all processes.

    Args:
        what (str): What it is of, for the message.
        digest (str): That of this process.

    Raises:
        ProcessesDiffer: Naming the ranks that differ from rank 0.
    """
    found = all_gather_object((what, digest))
    for rank, (other, _) in enumerate(found):
        if other != found[0][0]:
            raise ProcessesDiffer(
                f'rank 0 compares {found[0][0]} and rank {rank} {other}; start all processes with '
                f'the same config and work_dir, and with files that all of them see'
            )
    digests = [other for _, other in found]
    others = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if others:
        raise ProcessesDiffer(
            f'{what} of rank 0 and of rank {", ".join(map(str, others))} are not the same '
            f'({digests[0]} and {digests[others[0]]}); start all processes with the same config, '
            f'checkpoint, code and first validation image'
        )
