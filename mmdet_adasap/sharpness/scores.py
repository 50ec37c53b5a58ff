# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def magnitude(weight: Tensor, axis: int) -> Tensor:
    """ℓ2 norm of each neuron, s_i = ‖w_i‖₂.

    Args:
        weight (Tensor): A tensor with N neurons along ``axis``.
        axis (int): Axis of the neurons (output channels): 0, or 1 for transposed convolutions.

    Returns:
        Tensor: Scores of shape [N]; half precision is summed, and returned, as float32.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    others = [dim for dim in range(weight.dim()) if dim != axis]
    if not others:  # an empty list would mean "over all axes" below
        return weight.detach().abs().to(dtype)
    return torch.linalg.vector_norm(weight.detach(), dim=others, dtype=dtype)


# Scores ψ(w) that set the radii; the user's name -> function(weight, axis) -> [N].
SCORES: dict[str, Callable[[Tensor, int], Tensor]] = {'magnitude': magnitude}
