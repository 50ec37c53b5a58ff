# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the hook needs of a Runner and of the hooks beside it."""

from collections.abc import Callable
from math import inf

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook
from mmengine.model import BaseAveragedModel
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from ..integration.distributed import unwrapped
from ..models import complete_forward
from ..optim.gradients import isolated_gradients, optimizer_parameters
from ..pruning.model_state import ForwardFn, eval_mode


def is_resumed(runner: Runner) -> bool:
    """Whether a run goes on, by ``resume=True`` or by ``Runner.resume()`` before it trains."""
    return runner._resume or runner.iter > 0


def sample_forward(runner: Runner) -> ForwardFn:
    """A function that runs a model on the first image of the validation set (or training set).

    The model's raw outputs are returned. Where layers serve the loss alone, it is computed for
    the first training image as well. Random numbers are used up.
    """
    model = unwrapped(runner.model)
    batch = _first_batch(model, runner.val_loop or runner.train_loop)
    with eval_mode(model):
        return complete_forward(
            model,
            batch,
            lambda: _first_batch(model, runner.train_loop, images=2),
            lambda line: runner.logger.warning(f'AdaSAP: {line}'),
        )


def _first_batch(model: nn.Module, loop: BaseLoop, images: int = 1) -> dict | tuple | list:
    dataset = loop.dataloader.dataset
    batch = loop.dataloader.collate_fn([dataset[i % len(dataset)] for i in range(images)])
    with eval_mode(model):
        return model.data_preprocessor(batch, False)


def add_gradient_observer(optim_wrapper: OptimWrapper, observe: Callable[[], None]) -> None:
    """Have ``observe()`` called after each backward pass of any OptimWrapper.

    It sees the gradient of that micro-batch alone, before it is clipped, as it would under
    AdaSAPOptimWrapper.
    """
    backward = optim_wrapper.backward

    def observed(loss: torch.Tensor, **kwargs) -> None:
        with isolated_gradients(optimizer_parameters(optim_wrapper.optimizer), add=True):
            backward(loss, **kwargs)
            observe()

    optim_wrapper.backward = observed
    # Only what a backward pass brings is averaged over processes, not what was set aside.
    optim_wrapper.should_sync = lambda: True


def remove_gradient_observer(optim_wrapper: OptimWrapper) -> None:
    """Undo :func:`add_gradient_observer`."""
    del optim_wrapper.backward
    del optim_wrapper.should_sync


def averaged_models(runner: Runner) -> list[nn.Module]:
    """The copies of the model that EMA hooks hold."""
    return [averaging.module for averaging in _averaging(runner)]


def rebind_ema(runner: Runner) -> None:
    """Let EMA hooks see the tensors that their copies have after a cut.

    With ``update_buffers=True`` mmengine averages into tensors that it took from the copy once.
    """
    for averaging in _averaging(runner):
        if averaging.update_buffers:
            averaging.avg_parameters = averaging.module.state_dict()


def _averaging(runner: Runner) -> list[BaseAveragedModel]:
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    return [hook.ema_model for hook in hooks if hasattr(hook, 'ema_model')]


def reset_best_score(runner: Runner) -> None:
    """Let the best score be found anew among slim models: for checkpoints, early stopping.

    The best checkpoint so far, which is a dense one, goes.
    """
    info = runner.message_hub.runtime_info
    dense = [info[key] for key in info if key.startswith('best_ckpt') and info[key]]
    for key in [key for key in info if key.startswith(('best_score', 'best_ckpt'))]:
        del info[key]
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            runner.logger.info('AdaSAP cut the model: the best checkpoint is chosen anew')
            if getattr(hook, 'best_ckpt_path', None):
                hook.best_ckpt_path = None
            for indicator in getattr(hook, 'best_ckpt_path_dict', {}):
                hook.best_ckpt_path_dict[indicator] = None
            if is_main_process():
                for path in filter(hook.file_backend.isfile, dense):
                    hook.file_backend.remove(path)
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            hook.wait_count = 0
            hook.best_score = -inf if hook.rule == 'greater' else inf
