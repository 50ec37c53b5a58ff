# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a second pass over the same batch needs: the inputs, the random numbers, the buffers."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class RandomState(NamedTuple):
    """States of the random generators that a forward pass may draw from.

    Attributes:
        python (tuple): That of :mod:`random`.
        numpy (dict | tuple): That of numpy's global generator.
        cpu (Tensor): That of torch on the CPU.
        device (torch.device): The accelerator, or the CPU.
        accelerator (Tensor, optional): That of torch on ``device``; None on the CPU.
    """

    python: tuple
    numpy: Any
    cpu: Tensor
    device: torch.device
    accelerator: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> RandomState:
        """Read the states of all generators.

        Args:
            device (torch.device): Where the model runs.
        """
        accelerator = None
        if device.type != 'cpu':
            accelerator = getattr(torch, device.type).get_rng_state(device)
        # Models draw from numpy's global generator, legacy or not.
        legacy = np.random.get_state()  # noqa: NPY002
        return cls(random.getstate(), legacy, torch.get_rng_state(), device, accelerator)

    def restore(self) -> None:
        """Set the generators to these states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            getattr(torch, self.device.type).set_rng_state(self.accelerator, self.device)


@contextlib.contextmanager
def preserve_rng_state(model: nn.Module) -> Iterator[None]:
    """Leave the random generators as they were, whatever the block draws.

    Args:
        model (nn.Module): The model; the generator of its device is meant, too.
    """
    state = RandomState.capture(next(model.parameters()).device)
    try:
        yield
    finally:
        state.restore()


class BufferSnapshot:
    """A copy of all buffers of a model: batch-norm statistics, loss statistics and the like.

    All of them, not only the running statistics of the known layers, so that nothing which a
    layer counts is counted twice. (Version counters cannot tell which ones a pass touches:
    native batch norm writes its statistics without raising them.)

    Args:
        model (nn.Module): The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._saved = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()  # persistent or not
            if buffer is not None
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Put back the values, into the same tensors, also where a pass has swapped those."""
        for module, name, buffer, _ in self._saved:
            module._buffers[name] = buffer
        if self._saved:
            _, _, buffers, values = zip(*self._saved, strict=True)
            torch._foreach_copy_(buffers, values)


class CapturedForward:
    """The one forward pass of a model inside ``optim_context``, ready to be run again.

    A pre-hook on the model sees its inputs after preprocessing, which is right, since
    preprocessing may be random or change the batch in place. Tensors among the arguments, and
    in their lists, tuples and dicts, are shared; everything else, data samples above all, is
    copied, because detection heads change those.

    Args:
        model (nn.Module): The model as it is called, with its distributed wrapper if it has one.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.captured = False
        # In front of other hooks, which run in both passes and are to get the same inputs.
        self._handle = model.register_forward_pre_hook(
            self._capture, prepend=True, with_kwargs=True
        )

    def _capture(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.captured:
            raise RuntimeError(
                f'{type(module).__name__} is called more than once in optim_context, so it is '
                'open which forward pass the perturbed one should repeat; call it once a step, '
                'or set perturbation=None'
            )
        device = next((p.device for p in module.parameters()), torch.device('cpu'))
        # A version counter rises with each change in place.
        self._shared = [(tensor, tensor._version) for tensor in _plain_tensors((args, kwargs))]
        # deepcopy takes what it finds in the memo for copied, and so shares these tensors.
        memo = {id(tensor): tensor for tensor, _ in self._shared}
        self._args, self._kwargs = copy.deepcopy((args, kwargs), memo)
        self._random = RandomState.capture(device)
        self.captured = True

    def stop(self) -> None:
        """Take the hook off the model."""
        self._handle.remove()

    def run_again(self) -> Any:
        """Call the model with the captured inputs and the random numbers of the first pass.

        Returns:
            Any: What the model returns.

        Raises:
            RuntimeError: If the model changed one of its input tensors in place.
        """
        if any(tensor._version != version for tensor, version in self._shared):
            raise RuntimeError(
                f'{type(self.model).__name__} changes an input tensor in place, so its forward '
                'pass cannot be repeated; let it work on a clone of the tensor'
            )
        self._random.restore()
        return self.model(*self._args, **self._kwargs)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._random.device


def _plain_tensors(value: Any) -> list[Tensor]:
    """Return the tensors in ``value`` and, at any depth, in its lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [tensor for item in value for tensor in _plain_tensors(item)]
