# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Criteria: how much each channel matters, so that the least important ones are removed.

A criterion is a class with :meth:`Importance.scores`. Register another one with
``@IMPORTANCES.register_module()`` from ``mmdet_adasap.registry`` and name it in the config. Those
of this file are registered in ``registered/importances.py``: this file needs torch alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import NoGradientsError
from .groups import ChannelGroup, Member


class Importance(ABC):
    """Base class of the criteria.

    Args:
        normalize (bool): Divide the scores of a layer by their mean over the channels that are
            left, so that layers of different scale can compete for the budget.
    """

    needs_gradients = False
    """Whether :meth:`observe` has to be called after each clean backward pass."""

    def __init__(self, normalize: bool = True) -> None:
        if not isinstance(normalize, bool):
            raise ValueError(f'normalize={normalize!r} must be True or False')
        self.normalize = normalize

    @abstractmethod
    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        """Score the channels of one group.

        Args:
            group (ChannelGroup): The group.
            tensors (Mapping[str, Tensor]): Parameters and buffers of the model by name.
            kept (Tensor): bool of shape ``[group.size]``, the channels not removed so far.

        Returns:
            Tensor: float of shape ``[group.size]``; the lowest go first.
        """

    def observe(self, groups: list[ChannelGroup], parameters: Mapping[str, nn.Parameter]) -> None:
        """Use ``parameter.grad`` of one clean backward pass.

        Args:
            groups (list[ChannelGroup]): All groups of the model.
            parameters (Mapping[str, nn.Parameter]): Its parameters by name, with gradients.
        """

    def start_interval(self) -> None:
        """Forget what was observed; called after each pruning event."""

    def state_dict(self) -> dict:
        """Return what was observed since the last event, as plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict, groups: list[ChannelGroup]) -> None:
        """Restore what :meth:`state_dict` returned.

        Args:
            state (dict): The returned state.
            groups (list[ChannelGroup]): The groups that it has to fit.

        Raises:
            ValueError: If it does not fit.
        """

    def _normalized(self, scores: Tensor, kept: Tensor) -> Tensor:
        """Divide scores by the mean over the kept channels, if ``normalize`` is set."""
        if not self.normalize or not kept.any():
            return scores
        # A layer of zeros has the mean 0; its scores stay 0 rather than 0 / 0.
        return scores / scores[kept].mean().clamp_min(torch.finfo(scores.dtype).tiny)


class MagnitudeImportance(Importance):
    r"""Norm of the weights that produce a channel, :math:`\|w_i\|_p` (AdaSAP-P, arXiv:2306.14306).

    Where several layers share their channels, it is the mean of their norms.

    Args:
        p (float): Order of the norm, positive. Defaults to 2.
        normalize (bool): See :class:`Importance`. Defaults to True.
    """

    def __init__(self, p: float = 2, normalize: bool = True) -> None:
        super().__init__(normalize)
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p < float('inf'):
            raise ValueError(f'p={p!r} must be a positive number, 1 or 2 as a rule')
        self.p = p

    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        """Score by the norm, see :meth:`Importance.scores`."""
        norms = []
        for member in group.members:
            if member.is_output:
                weight = tensors[member.name].detach().float().movedim(member.axis, 0)
                norm = torch.linalg.vector_norm(weight.reshape(len(weight), -1), self.p, dim=1)
                index = torch.as_tensor(member.index, device=norm.device)
                norm = torch.linalg.vector_norm(norm[index], self.p, dim=1)
                norms.append(self._normalized(norm, kept))
        return torch.stack(norms).mean(0)


class TaylorImportance(Importance):
    r"""First-order effect of removing a channel, averaged over the iterations of an interval.

    The score is :math:`|\sum_l e_l|` over the layers :math:`l` that produce the channel. Where a
    trained normalisation follows the layer directly, :math:`e_l = \gamma_l g_{\gamma_l} + \beta_l
    g_{\beta_l}` (the criterion of HALP, arXiv:2210.06659): the loss does not depend on the scale
    of weights in front of a batch norm, so :math:`w \cdot g_w` is 0 there. Everywhere else, where
    the normalisation is missing or frozen, :math:`e_l = w_l \cdot g_{w_l} + b_l g_{b_l}`.
    Gradients are those of the clean first pass; a channel whose effect is not finite counts as 0.

    Where none of the layers :math:`l` got a gradient in the whole interval, as in a branch that
    did not run, the score is that of the interval before; NaN if there is none.

    Args:
        normalize (bool): See :class:`Importance`. Defaults to False, since a change of the
            loss is the same in every layer.
    """

    needs_gradients = True

    def __init__(self, normalize: bool = False) -> None:
        super().__init__(normalize)
        # Both are NaN for a group of which no gradient has been seen.
        self._sums: list[Tensor] = []
        self._last: list[Tensor] = []
        self._count = 0

    def start_interval(self) -> None:
        """Begin anew; the last effects stay for groups of which the next interval sees nothing."""
        if self._count:
            self._last = [self._mean_effect(i) for i in range(len(self._sums))]
        self._sums, self._count = [], 0

    def _mean_effect(self, index: int) -> Tensor:
        """Return the mean effects of a group, in the last interval that has seen any."""
        mean = self._sums[index] / self._count
        if not self._last:
            return mean
        return torch.where(mean.isnan(), self._last[index].to(mean.device), mean)

    def observe(self, groups: list[ChannelGroup], parameters: Mapping[str, nn.Parameter]) -> None:
        """Add the effects of one clean backward pass."""
        effects = [self._effect(group, parameters) for group in groups]
        if [len(last) for last in self._last] != [group.size for group in groups]:
            self._last = []  # of another model
        if self._count:
            sums = [a.to(b.device) for a, b in zip(self._sums, effects, strict=True)]
            effects = [
                torch.where(a.isnan(), b, a + b.nan_to_num(0))
                for a, b in zip(sums, effects, strict=True)
            ]
        self._sums = effects
        self._count += 1

    def _effect(self, group: ChannelGroup, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        """Return |sum of e_l| of every channel of a group, float of shape ``[group.size]``.

        All are NaN if no layer that makes them has a gradient: 0 would say that they are useless.
        """
        producers = [m for m in group.members if m.is_output]
        # Vectors have one axis and so one member; a weight may be there by both of its axes.
        vectors = {m.name: m for m in group.members if m.name in parameters and not m.is_output}
        total = torch.zeros(group.size, device=parameters[producers[0].name].device)
        is_seen = False
        for producer in producers:
            norm = producer.following_norm
            norm = [n for n in norm if n in vectors and parameters[n].requires_grad]
            bias = f'{producer.name.rpartition(".")[0]}.bias'
            parts = [vectors[n] for n in norm] or [producer]
            if not norm and bias in vectors:
                parts.append(vectors[bias])
            for part in parts:
                parameter = parameters[part.name]
                if parameter.grad is not None:
                    is_seen = True
                    effect = (parameter.detach() * parameter.grad).float()
                    total += per_channel(effect, part)
        if not is_seen:
            return torch.full_like(total, torch.nan)
        return total.abs().nan_to_num(0, 0, 0)

    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        """Score by the mean effect, see :meth:`Importance.scores`.

        Raises:
            NoGradientsError: If :meth:`observe` was not called in this interval.
        """
        if not self._count:
            raise NoGradientsError(
                'TaylorImportance has seen no gradients since the last pruning event: AdaSAPHook '
                'shows it those of each step of the prune phase; in a loop of your own call '
                'pruner.observe() after each loss.backward()'
            )
        return self._normalized(self._mean_effect(group.index).to(kept.device), kept)

    def state_dict(self) -> dict:
        """Return the sums of effects so far, and how many they are of."""
        sums, last = ([s.cpu() for s in found] for found in (self._sums, self._last))
        return {'sums': sums, 'count': self._count, 'last': last}

    def load_state_dict(self, state: dict, groups: list[ChannelGroup]) -> None:
        """Restore the sums, see :meth:`Importance.load_state_dict`."""
        sums, count = list(state['sums']), state['count']
        if type(count) is not int or count < 0 or bool(count) != bool(sums):
            raise ValueError(f'count is {count!r} beside {len(sums)} sums')
        last = list(state.get('last', ()))  # 0.1 did not write it
        for key, found in (('sums', sums), ('last', last)):
            shapes = [tuple(s.shape) if isinstance(s, Tensor) else s for s in found]
            if found and shapes != [(group.size,) for group in groups]:
                raise ValueError(f'{key} of {len(groups)} groups of channels are needed')
        self._sums, self._last, self._count = sums, last, count


def per_channel(values: Tensor, member: Member) -> Tensor:
    """Add up the values of a tensor that belong to each channel of a group.

    Args:
        values (Tensor): Of the shape of the member's parameter.
        member (Member): The part of the parameter in the group.

    Returns:
        Tensor: The sums, of shape ``[channels]``.
    """
    totals = values.movedim(member.axis, 0).reshape(values.shape[member.axis], -1).sum(1)
    return totals[torch.as_tensor(member.index, device=values.device)].sum(1)


def checked_scores(
    importance: Importance,
    group: ChannelGroup,
    tensors: Mapping[str, Tensor],
    kept: Tensor,
) -> Tensor:
    """Return what a criterion gives the channels of a group.

    Args:
        importance (Importance): The criterion.
        group (ChannelGroup): The channels.
        tensors (Mapping[str, Tensor]): Parameters and buffers of the model, by name.
        kept (Tensor): bool of shape ``[size]``, the channels present now.

    Returns:
        Tensor: Real, of shape ``[size]``.

    Raises:
        ValueError: If it gives something else.
    """
    found = importance.scores(group, tensors, kept)
    if isinstance(found, Tensor) and not found.is_complex() and found.shape == kept.shape:
        return found
    what = 'a ' + type(found).__name__
    if isinstance(found, Tensor):
        what = f'one of shape {list(found.shape)}'
    raise ValueError(
        f'{type(importance).__name__}.scores() must return a real tensor of shape '
        f'[{group.size}] for {group.name}, and returned {what}'
    )
