# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The parameters of a model as blocks of neurons, and their norms as rows of a matrix.

There is one row a block, padded to the longest. What is computed by neuron is then a handful of
small operations for the whole model instead of a dozen for each layer. And the order of every sum
is fixed: scatter_add on a GPU adds in any order, so that two runs would differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .radius import magnitude


class Block(NamedTuple):
    """A parameter that may be perturbed.

    Attributes:
        name (str): Its name in the model.
        param (nn.Parameter): The parameter itself.
        axis (int): Axis of its neurons.
        is_weight (bool): Whether it is the weight of a convolution or linear layer. Other
            tensors have no neurons of their own; ``keep`` masks go by their first axis.
    """

    name: str
    param: nn.Parameter
    axis: int
    is_weight: bool

    @property
    def count(self) -> int:
        """Entries along the axis of the neurons, as the parameter is now."""
        return self.param.shape[self.axis] if self.param.dim() else 1

    def broadcast(self, row: Tensor) -> Tensor:
        """Return a row, [neurons of the longest block], shaped to multiply the parameter."""
        shape = [1] * self.param.dim()
        if shape:
            shape[self.axis] = self.count
        return row[: self.count].view(shape)


def find_blocks(model: nn.Module) -> list[Block]:
    """Return all parameters of a model, each once, also where modules or parameters are shared."""
    blocks, seen = [], set()
    for prefix, module in model.named_modules():
        weight_axis = _weight_axis(module)
        for key, param in module.named_parameters(recurse=False):
            if id(param) in seen:
                continue
            seen.add(id(param))
            is_weight = key == 'weight' and weight_axis is not None
            name = f'{prefix}.{key}' if prefix else key
            blocks.append(Block(name, param, weight_axis if is_weight else 0, is_weight))
    return blocks


def _weight_axis(module: nn.Module) -> int | None:
    """Return the axis of the output channels in ``module.weight``; None where there is none.

    For a grouped transposed convolution the axis holds out_channels / groups entries.
    """
    if isinstance(module, _ConvTransposeNd):
        return 1
    if isinstance(module, _ConvNd | nn.Linear):
        return 0
    # mmcv's deformable convolutions do not derive from torch's.
    weight = getattr(module, 'weight', None)
    if 'Conv' in type(module).__name__ and isinstance(weight, Tensor) and weight.dim() == 4:
        return 0
    return None


def pad_to_rows(values: list[Tensor]) -> Tensor:
    """Return vectors of different lengths as rows of a matrix, padded with zeros."""
    return nn.utils.rnn.pad_sequence(values, batch_first=True)


def neuron_norms(tensors: list[Tensor], blocks: list[Block]) -> Tensor:
    """Return the ℓ2 norms of all neurons, [blocks, neurons of the longest block], zero-padded."""
    return pad_to_rows(
        [
            magnitude(t, block.axis).view(block.count)
            for t, block in zip(tensors, blocks, strict=True)
        ]
    )


def kept_neurons(blocks: list[Block], keep: Mapping[str, Tensor]) -> Tensor:
    """Return which neurons take part: those of the masks, and never the padding.

    Args:
        blocks (list[Block]): The blocks, one a row.
        keep (Mapping[str, Tensor]): Bool masks by parameter name, True for kept neurons.

    Returns:
        Tensor: Bool, [blocks, neurons of the longest block].

    Raises:
        ValueError: If a mask is not of type bool or not as long as its block.
    """
    device = blocks[0].param.device
    counts = torch.tensor([block.count for block in blocks], device=device)
    longest = max(block.count for block in blocks)
    kept = torch.arange(longest, device=device) < counts[:, None]
    for row, block in enumerate(blocks):
        mask = keep.get(block.name)
        if mask is None:
            continue
        if mask.dtype != torch.bool or mask.shape != (block.count,):
            raise ValueError(
                f'keep[{block.name!r}] is a {mask.dtype} tensor of shape {tuple(mask.shape)}, '
                f'but the parameter has {block.count} neurons along axis {block.axis}; give a '
                f'bool mask of shape ({block.count},)'
            )
        kept[row, : block.count] = mask.to(device)
    return kept
