# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How much a channel matters: the criterion that chooses what is removed.

A criterion is a class with :meth:`Importance.scores`. Register another one with
``@IMPORTANCES.register_module()`` from ``mmdet_adasap.registry`` and name it in the config.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .groups import ChannelGroup, Member


class Importance:
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

    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        """Score the channels of one group.

        Args:
            group (ChannelGroup): The group.
            tensors (Mapping[str, Tensor]): Parameters and buffers of the model by name.
            kept (Tensor): bool of shape ``[group.size]``, the channels not removed so far.

        Returns:
            Tensor: float of shape ``[group.size]``; the lowest go first.
        """
        raise NotImplementedError

    def observe(self, groups: list[ChannelGroup], parameters: Mapping[str, nn.Parameter]) -> None:
        """Take in ``parameter.grad`` of one clean backward pass."""

    def start_interval(self) -> None:
        """Forget what was observed; called after each pruning event."""

    def state_dict(self) -> dict:
        """What was observed since the last event, as plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Take back what :meth:`state_dict` gave."""

    def _normalized(self, scores: Tensor, kept: Tensor) -> Tensor:
        if not self.normalize or not kept.any():
            return scores
        return scores / scores[kept].mean().clamp_min(torch.finfo(scores.dtype).tiny)


class MagnitudeImportance(Importance):
    r"""Norm of the weights that make a channel, :math:`\|w_i\|_p` (AdaSAP-P).

    Layers that share their channels each give a norm; the mean of them counts.

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
        norms = []
        for member in group.members:
            if member.is_output:
                weight = tensors[member.name].detach().float()
                power = per_channel(weight.abs().pow(self.p), member)
                norms.append(self._normalized(power.pow(1 / self.p), kept))
        return torch.stack(norms).mean(0)


class TaylorImportance(Importance):
    r"""First-order effect of removing a channel, averaged over the iterations of an interval.

    :math:`|\sum_l (\gamma_l g_{\gamma_l} + \beta_l g_{\beta_l})|` over the normalisation
    layers that share the channel (the criterion of HALP, arXiv 2210.06659); where it has none,
    :math:`|\sum_l (w_l \cdot g_{w_l} + b_l g_{b_l})|` over the layers that make it.
    Gradients are those of the clean first pass.

    Args:
        normalize (bool): See :class:`Importance`. Defaults to False, since a change of the
            loss is the same in every layer.
    """

    needs_gradients = True

    def __init__(self, normalize: bool = False) -> None:
        super().__init__(normalize)
        self.start_interval()

    def start_interval(self) -> None:
        self._sums: list[Tensor] = []
        self._count = 0

    def observe(self, groups: list[ChannelGroup], parameters: Mapping[str, nn.Parameter]) -> None:
        effects = [self._effect(group, parameters) for group in groups]
        if self._count:
            effects = [a.to(b.device) + b for a, b in zip(self._sums, effects, strict=True)]
        self._sums = effects
        self._count += 1

    def _effect(self, group: ChannelGroup, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        makers = [m for m in group.members if m.name in parameters]
        vectors = [m for m in makers if parameters[m.name].dim() == 1]
        outputs = [m for m in makers if m.is_output]
        # Weights before a normalisation in training mode have w . g = 0: its scale speaks.
        biases = {m.name.rpartition('.')[0] for m in outputs}
        gates = [m for m in vectors if m.name.rpartition('.')[0] not in biases]
        total = torch.zeros(group.size, device=parameters[outputs[0].name].device)
        for member in gates or outputs + vectors:
            parameter = parameters[member.name]
            if parameter.grad is not None:
                total += per_channel((parameter.detach() * parameter.grad).float(), member)
        return total.abs()

    def scores(self, group: ChannelGroup, tensors: Mapping[str, Tensor], kept: Tensor) -> Tensor:
        if not self._count:
            raise RuntimeError(
                'TaylorImportance has seen no gradients; call observe() after a backward pass'
            )
        return self._normalized(self._sums[group.index].to(kept.device) / self._count, kept)

    def state_dict(self) -> dict:
        return {'sums': [s.cpu() for s in self._sums], 'count': self._count}

    def load_state_dict(self, state: dict) -> None:
        self._sums, self._count = list(state['sums']), state['count']


def per_channel(values: Tensor, member: Member) -> Tensor:
    """Add up the values of a tensor that belong to each channel, to shape ``[channels]``."""
    totals = values.movedim(member.axis, 0).reshape(values.shape[member.axis], -1).sum(1)
    return totals[torch.as_tensor(member.index, device=values.device)].sum(1)
