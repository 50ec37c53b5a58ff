# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The control of every criterion: the same share of each layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .groups import ChannelGroup
from .importance import Importance, TaylorImportance


class UniformWidth(Importance):
    """Ranks channels within their group, so that every group loses the same share.

    With the solver 'ranked' the widths are those of a uniformly narrower network, up to a step.
    Which channels of a group go is what another criterion says.

    Args:
        within (Importance, optional): That criterion. Defaults to ``TaylorImportance()``.

    Raises:
        ValueError: If it is no criterion.

    Attributes:
        within (str): Its name and arguments; runs that are resumed compare it.
    """

    def __init__(self, within: Importance | None = None) -> None:
        super().__init__(normalize=False)
        inner = TaylorImportance() if within is None else within
        if not isinstance(inner, Importance) or isinstance(inner, UniformWidth):
            raise ValueError(
                f'within={within!r} must be a criterion that tells the channels of a group apart, '
                f"for example 'TaylorImportance'"
            )
        self._inner = inner
        self.within = _described(inner)

    # A property, since a plain attribute would be a setting of the checkpoint. Of the class it is
    # true, as for the criterion that is taken where none is named.
    @property
    def needs_gradients(self) -> bool:
        """Whether :meth:`observe` has to be called after each clean backward pass."""
        return self._inner.needs_gradients

    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        """Score by ranks in (0, 1) among all channels, those that are gone lowest.

        See :meth:`Importance.scores`. What the other criterion does not know, or wants kept at
        any price (NaN or inf), stays as it is.
        """
        found = self._inner.scores(group, tensors, kept)
        ranked = found.float().masked_fill(~kept, -torch.inf)
        ranks = torch.empty_like(ranked)
        ranks[ranked.argsort(stable=True)] = torch.arange(
            len(ranked), dtype=ranked.dtype, device=ranked.device
        )
        ranks = (ranks + 0.5) / len(ranked)
        return torch.where(found.isfinite() | ~kept, ranks, found.to(ranks.dtype))

    def observe(self, groups: list[ChannelGroup], parameters: Mapping[str, nn.Parameter]) -> None:
        """Let the other criterion use the gradients of one clean backward pass."""
        self._inner.observe(groups, parameters)

    def start_interval(self) -> None:
        """Let the other criterion forget what it observed."""
        self._inner.start_interval()

    def state_dict(self) -> dict:
        """Return the state of the other criterion."""
        return self._inner.state_dict()

    def load_state_dict(self, state: dict, groups: list[ChannelGroup]) -> None:
        """Restore the state of the other criterion, see :meth:`Importance.load_state_dict`."""
        self._inner.load_state_dict(state, groups)


def _described(criterion: Importance) -> str:
    """Return a criterion as text, ``MagnitudeImportance(normalize=True, p=2)``.

    State is left out, as its names begin with an underscore.
    """
    arguments = ', '.join(
        f'{key}={value!r}'
        for key, value in sorted(vars(criterion).items())
        if not key.startswith('_') and isinstance(value, bool | int | float | str | None)
    )
    return f'{type(criterion).__name__}({arguments})'
