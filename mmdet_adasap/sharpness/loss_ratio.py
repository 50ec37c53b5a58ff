# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A radius without tuning: radii follow what they do to the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

import torch
from torch import Tensor

GAIN, FIRST_GAIN = 0.1, 3.0
"""Change of log(scale) for a ratio that is off by all of what is wanted above 1: after t steps
``max(GAIN, FIRST_GAIN / (t + 10))``. Noise of a batch then moves the scale by a few percent."""
MOST_DOWN = 10.0
"""Errors count this much at the most: a scale that is far too large falls to 1 / e in a step."""
START = 0.01
"""The first scale. To begin with radii that are too large can ruin a network in a few steps, and
from here up to radii as they are given it takes some 30."""
BOUNDS = 1e-4, 1e2
"""Least and largest scale."""
FAR = 0.03
"""‖ε‖/‖w‖ from which on the scale does not rise. Where the loss hardly depends on the weights, as
in an untrained network, no radius reaches the ratio, and the next slope would be met with a huge
one. The radii that have trained well so far have 0.002 to 0.02."""


class LossRatioController:
    r"""Scales radii so that the mean of L(w+ε)/L(w) is a wanted value.

    After each step with a ratio r, of a wanted R,

        ``log(scale) += gain * clip((R - r) / (R - 1), -10, 1)``,

    which comes to rest where the mean of r is R. A ratio says more than a radius: what a radius
    does to the loss differs by a factor of 100 from scope to scope, and from model to model. This
    is a rule of ours; radii of SAM and of AdaSAP (arXiv:2306.14306) are fixed.

    Nothing waits for the device. In a distributed run give all processes the same numbers.

    Args:
        loss_ratio (float): The wanted ratio, above 1.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not above 1, or infinite.

    Attributes:
        wanted (float): The same.
        log_scale (Tensor): Logarithm of what radii are multiplied by, 0-dim float32.
        steps (Tensor): Steps that have counted, 0-dim float32.
    """

    def __init__(self, loss_ratio: float) -> None:
        if not isinstance(loss_ratio, Real) or isinstance(loss_ratio, bool):
            raise TypeError(f'loss_ratio={loss_ratio!r} is not a number; give one above 1, as 1.3')
        if not 1 < loss_ratio < math.inf:
            raise ValueError(
                f'loss_ratio={loss_ratio!r} must be above 1, since the loss rises uphill; write '
                f'1.3, or leave it out for radii that stay as given'
            )
        self.wanted = float(loss_ratio)
        self.log_scale = torch.tensor(math.log(START))
        self.steps = torch.zeros(())

    @property
    def scale(self) -> Tensor:
        """What radii are multiplied by, 0-dim float32."""
        return self.log_scale.exp()

    @torch.no_grad()
    def update(
        self, loss: Tensor, perturbed_loss: Tensor, eps_ratio: Tensor, usable: Tensor | bool = True
    ) -> None:
        """Take what a step has shown.

        A step that was not moved, or whose loss at w is 0, negative or not finite, does not count.
        A loss at w + ε that is not finite has gone too far.

        Args:
            loss (Tensor): L(w), 0-dim.
            perturbed_loss (Tensor): L(w+ε), 0-dim.
            eps_ratio (Tensor): ‖ε‖/‖w‖, 0-dim.
            usable (Tensor | bool): Whether there was a direction to move in. Defaults to True.
        """
        loss, perturbed_loss = loss.float(), perturbed_loss.float()
        device = loss.device
        log_scale, steps = self.log_scale.to(device), self.steps.to(device)
        error = (self.wanted - perturbed_loss / loss) / (self.wanted - 1)
        error = torch.where(perturbed_loss.isfinite(), error, -MOST_DOWN)
        most = torch.where(eps_ratio.to(device) < FAR, 1.0, 0.0)
        error = torch.minimum(error, most).clamp_min(-MOST_DOWN)
        counts = torch.as_tensor(usable, device=device) & loss.isfinite() & (loss > 0)
        gain = (FIRST_GAIN / (steps + 10)).clamp_min(GAIN)
        moved = (log_scale + gain * error).clamp(*map(math.log, BOUNDS))
        # Replaced and not changed in place: a step that is under way holds the old ones.
        self.log_scale = torch.where(counts, moved, log_scale)
        self.steps = steps + counts

    def state_dict(self) -> dict[str, float]:
        """Return the state as plain numbers."""
        return {'log_scale': float(self.log_scale), 'steps': float(self.steps)}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take up a state.

        Args:
            state (Mapping[str, float]): What :meth:`state_dict` gave.

        Raises:
            ValueError: If it is something else.
        """
        log_scale, steps = state.get('log_scale'), state.get('steps')
        if type(log_scale) is not float or not abs(log_scale) < 100:
            raise ValueError(f'log_scale={log_scale!r} must be a number')
        if type(steps) is not float or not 0 <= steps < math.inf:
            raise ValueError(f'steps={steps!r} must be a number of 0 or more')
        self.log_scale, self.steps = torch.tensor(log_scale), torch.tensor(steps)


def check_scalable(key: str, radius: float, loss_ratio: float | None) -> None:
    """Check that a radius is not 0 if it is to be scaled.

    Args:
        key (str): What the radius is called.
        radius (float): The largest radius.
        loss_ratio (float | None): The wanted ratio.

    Raises:
        ValueError: If it is.
    """
    if loss_ratio is not None and radius == 0:
        raise ValueError(
            f'{key}=0 and loss_ratio={loss_ratio:g}: no scale makes a radius of 0 larger; give '
            f'{key} > 0, or leave both out'
        )
