# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the hook needs of a Runner and of the hooks beside it."""

from collections.abc import Callable

import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from ..models.raw_outputs import raw_forward
from ..optim.gradients import optimizer_parameters, set_aside
from ..optim.replay import RandomState
from ..pruning.tracing import ForwardFn, evaluating
from ..unwrapping import unwrapped


def sample_forward(runner: Runner) -> ForwardFn:
    """A function that runs a model on the first image of the validation set (or training set).

    The model's raw outputs are returned. No random number of the run is used up.
    """
    loop = runner.val_loop or runner.train_loop
    model = unwrapped(runner.model)
    random = RandomState.capture(next(model.parameters()).device)
    try:
        batch = loop.dataloader.collate_fn([loop.dataloader.dataset[0]])
        with evaluating(model):
            batch = model.data_preprocessor(batch, False)
    finally:
        random.restore()
    return raw_forward(batch)


def watch_backward(optim_wrapper: OptimWrapper, observe: Callable[[], None]) -> None:
    """Have ``observe()`` called after each backward pass of any OptimWrapper.

    It sees the gradient of that micro-batch alone, before it is clipped, as it would under
    AdaSAPOptimWrapper.
    """
    backward = optim_wrapper.backward

    def observed(loss: torch.Tensor, **kwargs) -> None:
        with set_aside(optimizer_parameters(optim_wrapper.optimizer), add=True):
            backward(loss, **kwargs)
            observe()

    optim_wrapper.backward = observed


def stop_watching_backward(optim_wrapper: OptimWrapper) -> None:
    """Undo :func:`watch_backward`."""
    del optim_wrapper.backward


def averaged_models(runner: Runner) -> list[nn.Module]:
    """The copies of the model that EMA hooks hold."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    return [hook.ema_model.module for hook in hooks if hasattr(hook, 'ema_model')]


def forget_best_score(runner: Runner) -> None:
    """Let the best checkpoint be chosen anew, among slim models only."""
    info = runner.message_hub.runtime_info
    for key in [key for key in info if key.startswith('best_score')]:
        del info[key]
    if any(isinstance(hook, CheckpointHook) and hook.save_best for hook in runner.hooks):
        runner.logger.info('AdaSAP cut the model: the best checkpoint is chosen anew')
