# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Latency tables of the toy model, and a clock that goes by them, for runs of AdaSAPHook."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from _utils.latency_formula import nanoseconds, table_content
from _utils.nets import runs
from _utils.toy import ToyModel
from mmdet_adasap.pruning import find_channels

IMAGE = torch.zeros(1, 3, 8, 8)


def toy_milliseconds(model: nn.Module, step: int = 1) -> float:
    """What the layers of a toy model take by the formula."""
    channels = find_channels(model, runs(IMAGE))
    return nanoseconds(channels.calls, channels.group_sizes, step) / 1e6


def toy_table(file: Path, **settings) -> Path:
    """Write the table of the toy model; settings as for ``table_content``."""
    content = table_content(find_channels(ToyModel(), runs(IMAGE)), **settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def saving(part: float) -> Callable[[float], float]:
    """Return a clock by which a cut saves a part of what the table says that it saves."""
    return lambda share: 1 - part * (1 - share)


class Clock:
    """Stands for ``time_share_on``: this machine takes what the formula says, distorted.

    Args:
        distort (Callable): Takes a share of the dense time, and returns what is measured.
    """

    def __init__(self, distort: Callable[[float], float]) -> None:
        self.distort = distort
        self.shares: list[float] = []

    def __call__(self, table) -> Callable[[nn.Module, nn.Module], float]:
        def time_share(dense: nn.Module, slim: nn.Module) -> float:
            self.shares.append(self.distort(toy_milliseconds(slim) / toy_milliseconds(dense)))
            return self.shares[-1]

        return time_share
