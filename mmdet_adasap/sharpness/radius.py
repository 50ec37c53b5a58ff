# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The adaptive radii of AdaSAP (arXiv:2306.14306): score of a neuron, then radius of its step.

For the neurons i of a layer with weights w_i::

    s_i   = ψ(w_i)                                                              magnitude()
    rho_i = rho_max - (s_i - s_min) / (s_max - s_min) * (rho_max - rho_min)     adaptive_radii()
    ε_i   = rho_i * T_w² g_i / ‖T_w g‖₂                                         Perturbation

The last line, with the gradient g and the scaling T_w of ASAM, is in ``perturbation.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def magnitude(weight: Tensor, axis: int) -> Tensor:
    """Return the ℓ2 norm of each neuron, s_i = ‖w_i‖₂, the plain choice of ψ.

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


SCORES: dict[str, Callable[[Tensor, int], Tensor]] = {'magnitude': magnitude}
"""Scores ψ by the name in a config: a function of (weight, axis) that returns shape [N]."""


def adaptive_radii(
    scores: Tensor, rho_min: float, rho_max: float, keep: Tensor | None = None
) -> Tensor:
    """Return the radii of AdaSAP: a neuron that matters little gets a large radius.

    ``rho_i = rho_max - (s_i - s_min) / (s_max - s_min) * (rho_max - rho_min)``
    (arXiv:2306.14306), with ``s_min`` and ``s_max`` over the last axis, that is over one layer.

    What the paper leaves open is settled as follows:

    - all scores of a layer equal (one neuron, all zeros): the mean of the two radii, so that
      a layer without a ranking is moved like an average one;
    - a NaN or infinite score: that neuron gets ``rho_min``, the careful choice, and is left
      out of the range, so that it does not spoil its layer;
    - a neuron that is not kept: radius 0, and left out of the range.

    Args:
        scores (Tensor): Scores s_i of the neurons, floating point, shape [..., N]; each row
            along the last axis is a layer with a range of its own.
        rho_min (float): Radius of the neuron with the highest score.
        rho_max (float): Radius of the neuron with the lowest score.
        keep (Tensor, optional): True for the neurons that take part, bool, the shape of
            ``scores``. Defaults to None: all of them.

    Returns:
        Tensor: Radii, the shape, dtype and device of ``scores``. Nothing is synchronised.
    """
    finite = torch.isfinite(scores)
    ranged = finite if keep is None else finite & keep
    infinity = float('inf')
    lowest = scores.where(ranged, scores.new_tensor(infinity)).amin(-1, keepdim=True)
    highest = scores.where(ranged, scores.new_tensor(-infinity)).amax(-1, keepdim=True)
    span = highest - lowest
    # 0.5 is the mean of the radii, for a layer without a range; a row without any neuron in the
    # range has the span -inf, and every one of its radii is replaced below.
    rank = torch.where(span > 0, (scores - lowest) / span, 0.5)
    radii = rho_max - rank * (rho_max - rho_min)
    radii = radii.masked_fill(~finite, rho_min)
    return radii if keep is None else radii.masked_fill(~keep, 0.0)
