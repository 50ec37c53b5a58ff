# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Say what keeps a model above a target, and what to do about it."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from torch import nn

from ..errors import listed
from .cost import Cost
from .groups import NOT_TRAINED, OUTPUT, PrunableChannels
from .latency_cost import LatencyCost
from .selection import minimum_counts
from .structure import named_tensors
from .training_pass import unused_weights

NOTEWORTHY = 0.01
"""Share of the parameters from which on a reason is named, an own choice."""


class _Cause(NamedTuple):
    """Why parameters stay: their share of the dense model, the layers, the largest first."""

    share: float
    reason: str
    layers: list[str]


def unreachable_message(
    model: nn.Module,
    channels: PrunableChannels,
    resource: str,
    cost: Cost | LatencyCost,
    dense: dict[str, int],
    limit: float,
    round_to: int,
    max_pruning_ratio: float,
) -> str | None:
    """Return why a limit cannot be met, and what to change; None if it can be met.

    Args:
        model (nn.Module): The model.
        channels (PrunableChannels): Its channels.
        resource (str): 'params', 'flops' or 'latency'.
        cost (Cost | LatencyCost): What is limited.
        dense (dict[str, int]): What the dense model costs, by resource.
        limit (float): The most that may remain of the resource.
        round_to (int): Channels that a layer keeps are a multiple of it.
        max_pruning_ratio (float): The largest share of its channels that a group may lose.

    Returns:
        str | None: The message, without the target in front.
    """

    def least(step: int, ratio: float = max_pruning_ratio) -> np.ndarray:
        return minimum_counts(channels.group_sizes, channels.group_steps(step), ratio)

    if cost(least(round_to)) <= limit:
        return None
    fraction = cost(least(round_to)) / dense[resource]
    unlimited = cost(least(round_to, 1.0))
    settings = f'round_to={round_to}'
    if unlimited < cost(least(round_to)):
        settings += f' and max_pruning_ratio={max_pruning_ratio:g}'
    text = f'with {settings} at least {fraction:.4f} remain; '
    if resource == 'latency':
        here, floor = cost(least(round_to)) / 1e6, unlimited / 1e6
        text = (
            f'with {settings} at least {fraction:.4f} remain, {here:.3g} ms by the table, and '
            f'cutting channels cannot go below {floor:.3g} ms on that device; '
        )
    remedies = []
    most = min(round_to - 1, int(channels.group_sizes.max(initial=1)))
    divisors = [step for step in range(most, 0, -1) if round_to % step == 0]
    smaller = next((step for step in divisors if cost(least(step)) <= limit), None)
    if unlimited <= limit:
        remedies.append('raise max_pruning_ratio towards 1')
    elif smaller is not None and resource != 'latency':
        remedies.append(f'lower round_to to {smaller}')
    else:
        cause = _main_cause(model, channels, least(round_to), dense['params'])
        if cause is not None:
            text += (
                f'{cause.share:.3f} of the parameters are in {listed(cause.layers, 1)}, which '
                f'stay: {cause.reason}; '
            )
            remedies += _remedy(cause.reason, channels.excluded.values())
    # Rounded up to three digits, a target of more would be one of 1.000.
    if fraction <= 0.9995:
        remedies.append(f'set a target of {math.ceil(fraction * 1000) / 1000:.3f} or more')
    return text + (', or '.join(remedies) or 'nothing of this model can go')


def event_message(
    resource: str, wanted: float, left: float, whole: Mapping[str, list[str]]
) -> str:
    """Return what a pruning event could not cut, and what to do.

    Args:
        resource (str): What is limited.
        wanted (float): The fraction of the dense model that was to remain.
        left (float): What remains when every group keeps the least it may.
        whole (Mapping[str, list[str]]): Reasons for which layers are left whole now, to these.
    """
    reasons = [f'{reason}: {listed(names)}' for reason, names in whole.items() if names]
    stay = f'; left whole: {"; ".join(reasons)}' if reasons else ''
    remedies = ['train these layers up to the last event'] if reasons else []
    if left <= 0.9995 or not reasons:  # rounded up to three digits that would be 1.000
        target = min(math.ceil(left * 1000) / 1000, 1.0)
        table = ', table=...' if resource == 'latency' else ''
        remedies.append(f'set target=dict({resource}={target:.3f}{table}) or more')
    return (
        f'{resource} {wanted:.4g} of the dense model cannot be reached now: at least '
        f'{left:.4f} remain{stay}; {", or ".join(remedies)}'
    )


UNUSED = 'they took no part in the run'


def _main_cause(
    model: nn.Module, channels: PrunableChannels, counts: np.ndarray, params: int
) -> _Cause | None:
    """Return the reason for which most parameters stay when each group keeps the least.

    Args:
        model (nn.Module): The model.
        channels (PrunableChannels): Its channels.
        counts (np.ndarray): Channels that each group keeps, int of shape ``[groups]``.
        params (int): Parameters of the dense model.
    """
    left = _parameters_left(model, channels, counts)
    held = {reason: {axis.name for axis in axes} for reason, axes in channels.frozen.items()}
    held[UNUSED] = set(unused_weights(model, channels))
    causes = []
    for reason, names in held.items():
        names = sorted((n for n in names if n in left), key=lambda n: (-left[n], n))
        layers = list(dict.fromkeys(name.rpartition('.')[0] or name for name in names))
        causes.append(_Cause(sum(left[name] for name in names) / params, reason, layers))
    # A head often reads fixed inputs as well; that it makes the outputs says more.
    cause = max(causes, key=lambda cause: (cause.share, cause.reason == OUTPUT))
    return cause if cause.share >= NOTEWORTHY else None


def _parameters_left(
    model: nn.Module, channels: PrunableChannels, counts: np.ndarray
) -> dict[str, float]:
    """Return the size of every parameter when each group keeps so many channels."""
    shapes = {name: list(tensor.shape) for name, tensor in named_tensors(model).items()}
    for group, count in zip(channels.groups, counts, strict=True):
        for member in group.members:
            removed = (group.size - count) * member.index.shape[1]
            shapes[member.name][member.axis] -= int(removed)
    return {name: math.prod(shapes[name]) for name, _ in model.named_parameters()}


def _remedy(reason: str, excluded: Collection[str]) -> list[str]:
    """Return what can be done about a reason; nothing if no setting changes it."""
    if reason == NOT_TRAINED:
        return ['train them (requires_grad=True; frozen_stages=-1 in a config)']
    if reason == OUTPUT:
        return []
    if reason == UNUSED:
        return ['give an input or a forward that runs them']
    if reason in excluded:
        return ['mend the code that fails there when they are narrower']
    if 'which has no rule' in reason or 'whose rule fails' in reason:
        return ['write a rule for that operation (README: New operations)']
    return ['replace that operation, which needs these channels as they are']
