# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Hold removed channels at zero while the model keeps its dense shape."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..sharpness import find_blocks
from .groups import ChannelGroup, removed_indices
from .structure import Keep


class ChannelMasks:
    """Zeroes the parameters of removed channels and keeps them at zero.

    A removed channel is zero in the weights that produce it and in those that read it. Its
    gradient is zeroed as soon as it is computed, and so is its optimizer state, so that no step
    moves it. The model then gives what the cut model will give.

    Args:
        model (nn.Module): The dense model.
        groups (list[ChannelGroup]): Its channel groups.

    Attributes:
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group; set by :meth:`remove`.
    """

    def __init__(self, model: nn.Module, groups: list[ChannelGroup]) -> None:
        self.groups = groups
        self._model = model
        self.kept = [np.ones(group.size, dtype=bool) for group in groups]
        self._parameters = dict(model.named_parameters())
        self._removed: dict[str, dict[int, Tensor]] = {}
        self._handles: list = []

    @property
    def counts(self) -> np.ndarray:
        """Channels that each group keeps, int of shape ``[groups]``."""
        return np.array([k.sum() for k in self.kept], dtype=np.int64)

    def remove(
        self,
        kept: list[np.ndarray],
        optimizers: Iterable[Optimizer] = (),
        copies: Iterable[nn.Module] = (),
    ) -> None:
        """Zero every channel that is not kept.

        Args:
            kept (list[np.ndarray]): bool of shape ``[size]`` for each group.
            optimizers (Iterable[Optimizer]): Whose state is zeroed likewise.
            copies (Iterable[nn.Module]): Copies of the model (moving averages) to zero likewise.
        """
        self.kept = [k.copy() for k in kept]
        self._removed = {
            name: {
                axis: torch.as_tensor(index, device=self._parameters[name].device)
                for axis, index in axes.items()
            }
            for name, axes in removed_indices(self.groups, self.kept).items()
            if name in self._parameters
        }
        self._watch_gradients()
        states = [optimizer.state for optimizer in optimizers]
        others = [dict(copy.named_parameters()) for copy in copies]
        with torch.no_grad():
            for name, axes in self._removed.items():
                parameter = self._parameters[name]
                tensors = [parameter.data, *(other[name].data for other in others)]
                if parameter.grad is not None:  # of an accumulation that an event interrupts
                    tensors.append(parameter.grad)
                for state in states:
                    tensors += [
                        value
                        for value in state.get(parameter, {}).values()
                        if isinstance(value, Tensor) and value.shape == parameter.shape
                    ]
                for tensor in tensors:
                    _zero(tensor, axes)

    def _watch_gradients(self) -> None:
        """Zero the gradients of removed channels in every backward pass from now on."""
        self.release()
        for name, axes in self._removed.items():

            def zero_gradient(parameter: Tensor, axes: dict = axes) -> None:
                _zero(parameter.grad, axes)

            parameter = self._parameters[name]
            if not (parameter.is_floating_point() or parameter.is_complex()):
                continue
            # PyTorch refuses such a hook on a parameter that needs no gradient. One that is frozen
            # now may train again before the next event, and its removed channels must stay zero.
            is_trained = parameter.requires_grad
            parameter.requires_grad = True
            # Fires after every accumulation, before an optimizer or a perturbation reads .grad.
            self._handles.append(parameter.register_post_accumulate_grad_hook(zero_gradient))
            parameter.requires_grad = is_trained

    @torch.no_grad()
    def hold(self) -> None:
        """Zero the removed channels anew, which some optimizers move although their gradient is 0.

        Those that add noise to a step do, and those that subtract the mean of a gradient.
        """
        for name, axes in self._removed.items():
            _zero(self._parameters[name].data, axes)

    def release(self) -> None:
        """Stop watching gradients; what is zero stays zero."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def neuron_masks(self) -> dict[str, Tensor]:
        """Return which neurons of a perturbation's blocks are kept, for those that lose some.

        A perturbation must neither move removed neurons nor count them in its norms.

        Returns:
            dict[str, Tensor]: Parameter name to bool of shape ``[neurons]``.
        """
        masks = {}
        for block in find_blocks(self._model):
            removed = self._removed.get(block.name, {}).get(block.axis)
            if removed is not None:
                mask = torch.ones(block.count, dtype=torch.bool, device=block.param.device)
                mask[removed] = False
                masks[block.name] = mask
        return masks


@torch.no_grad()
def mask(model: nn.Module, keep: Keep) -> None:
    """Zero the parameters that a cut would take away, at dense shape, in place.

    Statistics in buffers keep their values: scale and shift already make the channel zero.

    Args:
        model (nn.Module): A dense model.
        keep (dict): Tensor name to axis to kept indices, see ``structure.py``.
    """
    for name, parameter in model.named_parameters():
        removed = {}
        for axis, index in keep.get(name, {}).items():
            gone = np.setdiff1d(np.arange(parameter.shape[axis]), index)
            removed[axis] = torch.as_tensor(gone, device=parameter.device)
        _zero(parameter.data, removed)


@torch.no_grad()
def _zero(tensor: Tensor, axes: dict[int, Tensor]) -> None:
    """Fill the indices of each axis with 0, in place."""
    for axis, index in axes.items():
        tensor.index_fill_(axis, index, 0)
