# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model in train mode as well, for the layers that it leaves out in eval mode."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .groups import PrunableChannels
from .model_state import ForwardFn, eval_mode, output_tensors, preserve_modes, preserve_state
from .repeats import not_counted


def unused_weights(model: nn.Module, channels: PrunableChannels) -> list[str]:
    """Return the weights that took no part in the run, without biases and factors of norms.

    Args:
        model (nn.Module): The traced model.
        channels (PrunableChannels): What the trace has found.

    Returns:
        list[str]: Names of parameters of two axes or more.
    """
    parameters = dict(model.named_parameters())
    return [name for name in channels.unused_parameters if parameters[name].dim() > 1]


def with_training_pass(model: nn.Module, forward: ForwardFn) -> ForwardFn:
    """Return a function that runs a model in eval mode and then in train mode.

    Auxiliary heads run in train mode alone. Dropout stays off and norms keep their statistics, so
    that the pass can be repeated. Outputs that differ nevertheless from one time to the next are
    protected by a trace, and compared as zeros.

    Args:
        model (nn.Module): The model; left as it is.
        forward (Callable): Runs a model on a real input and returns its raw outputs.

    Returns:
        Callable: Takes a model, and returns its outputs in both modes.

    Raises:
        Exception: Whatever the model raises in train mode.
    """
    with eval_mode(model), preserve_state(model):
        first, second = (_train_mode_outputs(model, forward) for _ in range(2))
    repeatable = len(first) == len(second) and all(map(torch.equal, first, second))

    def both(model: nn.Module) -> object:
        outputs = forward(model)
        with not_counted():  # FLOPs are those of a test
            trained = _train_mode_outputs(model, forward)
        return outputs, trained if repeatable else [tensor * 0 for tensor in trained]

    return both


def _train_mode_outputs(model: nn.Module, forward: ForwardFn) -> list[Tensor]:
    """Return what a model gives in train mode, without anything random in single layers."""
    with preserve_modes(model):
        model.train()
        for module in model.modules():
            # Dropout, stochastic depth and the like have neither children nor weights.
            plain = not any(module.children()) and not any(
                True for _ in module.parameters(recurse=False)
            )
            if plain or isinstance(module, _NormBase):
                module.training = False
        return output_tensors(forward(model))
