# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the hook needs of a Runner and of the hooks beside it."""

import copy

import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ..optim.replay import RandomState
from ..pruning import StructureError, check_structure, cut
from ..pruning.structure import META_KEY, is_cut
from ..pruning.tracing import ForwardFn, evaluating


def bare_model(runner: Runner) -> nn.Module:
    """The model without its distributed wrapper."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def sample_forward(runner: Runner) -> ForwardFn:
    """A function that runs a model on the first image of the validation set (or training set).

    The model's raw outputs are returned. No random number of the run is used up.
    """
    loop = runner.val_loop or runner.train_loop
    model = bare_model(runner)
    random = RandomState.capture(next(model.parameters()).device)
    try:
        batch = loop.dataloader.collate_fn([loop.dataloader.dataset[0]])
        with evaluating(model):
            batch = model.data_preprocessor(batch, False)
    finally:
        random.restore()

    def forward(model: nn.Module) -> object:
        inputs = copy.deepcopy(batch)
        if isinstance(inputs, dict):
            return model(**inputs, mode='tensor')
        return model(*inputs, mode='tensor')

    return forward


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


def load_structure(checkpoint: dict, model: nn.Module, copies: list[nn.Module]) -> dict | None:
    """Give a model the shape that a checkpoint has, before its weights are loaded.

    Args:
        checkpoint (dict): As loaded from a file.
        model (nn.Module): The model of the unpruned config.
        copies (list[nn.Module]): Moving averages of it, reshaped likewise.

    Returns:
        dict, optional: The structure; None if the checkpoint is not one of a pruned model.

    Raises:
        StructureError: If it is malformed, or does not fit the model or the weights.
    """
    structure = (checkpoint.get('meta') or {}).get(META_KEY)
    if structure is None:
        return None
    check_structure(structure)
    weights = checkpoint.get('state_dict', {})
    if is_cut(structure) and not _fits(model, weights):
        for module in (model, *copies):
            cut(module, structure['keep'], structure['attrs'])
    refuse_misfit(model, weights)
    return structure


def refuse_misfit(model: nn.Module, weights: dict) -> None:
    """Refuse weights of a pruned model that mmengine would skip with no more than a log line.

    Raises:
        StructureError: Naming the first tensor whose shape is not the model's.
    """
    for name, tensor in model.state_dict().items():
        found = weights.get(name)
        if isinstance(found, torch.Tensor) and found.shape != tensor.shape:
            raise StructureError(
                f'{name} has the shape {tuple(found.shape)} in the pruned checkpoint and '
                f'{tuple(tensor.shape)} in the model; use the config that it was pruned with, '
                f'with AdaSAPHook among its default_hooks'
            )


def _fits(model: nn.Module, weights: dict) -> bool:
    try:
        refuse_misfit(model, weights)
    except StructureError:
        return False
    return True
