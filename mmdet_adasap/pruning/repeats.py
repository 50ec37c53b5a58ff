# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Count layers more often than a trace runs them, as those that later get more inputs.

The second stage of a detector is traced with a few regions and runs on a thousand.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from torch import Tensor, nn

_TIMES: ContextVar[float] = ContextVar('times', default=1)


def times() -> float:
    """Return how often the operation that runs now counts."""
    return _TIMES.get()


@contextlib.contextmanager
def not_counted() -> Iterator[None]:
    """Let what runs inside count for nothing, as a pass of training beside that of a test."""
    before = _TIMES.set(0)
    try:
        yield
    finally:
        _TIMES.reset(before)


@contextlib.contextmanager
def repeated(module: nn.Module, traced: int, later: int) -> Iterator[None]:
    """Let a module count as if its inputs were more, in FLOPs.

    Args:
        module (nn.Module): Whose input is a tensor, ``[traced, ...]``; a run with another number
            of inputs, as of the whole image, counts once.
        traced (int): Inputs in the trace.
        later (int): Inputs that it is going to run on.
    """
    before = []

    def enter(_: nn.Module, args: tuple) -> None:
        x = args[0] if args else None
        fits = isinstance(x, Tensor) and x.dim() > 0 and len(x) == traced
        before.append(_TIMES.set(_TIMES.get() * (later / traced if fits else 1)))

    def leave(_: nn.Module, args: tuple, output: object) -> None:
        _TIMES.reset(before.pop())

    handles = [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
