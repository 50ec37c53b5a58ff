# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Hooks for configs: batch norm that can be frozen early, and is."""

from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_adasap.integration.distributed import unwrapped


@HOOKS.register_module()
class FastNorm(Hook):
    """Running statistics that have settled after a few iterations."""

    def before_train(self, runner: Runner) -> None:
        for norm in norms(runner):
            norm.momentum = 0.3


@HOOKS.register_module()
class FrozenNorm(Hook):
    """Images do not see each other in a batch, so that it can be shared out to processes.

    What each process ends with is written to a file.
    """

    def before_run(self, runner: Runner) -> None:
        unwrapped(runner.model).backbone.register_forward_pre_hook(in_dtype_of_weights)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        for norm in norms(runner):
            norm.eval()

    def after_train(self, runner: Runner) -> None:
        weights = unwrapped(runner.model).state_dict()
        torch.save(weights, Path(runner.work_dir, f'rank_{get_rank()}.pth'))


def norms(runner: Runner) -> list[_BatchNorm]:
    return [m for m in unwrapped(runner.model).modules() if isinstance(m, _BatchNorm)]


def in_dtype_of_weights(module: nn.Module, images: tuple) -> tuple:
    dtype = next(module.parameters()).dtype
    return tuple(image.to(dtype) for image in images)
