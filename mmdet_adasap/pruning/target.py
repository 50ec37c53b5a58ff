# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a user asks for: how much of a model is to remain, and how much a layer may lose."""

from collections.abc import Mapping
from numbers import Real

import numpy as np
from torch import Tensor, nn

from ..errors import did_you_mean

RESOURCES = ('params', 'flops')
MAX_PRUNING_RATIO = 0.9
"""Default of ``max_pruning_ratio``."""


def check_target(target: object) -> tuple[str, float]:
    """Check a target, ``dict(params=0.4)`` or ``dict(flops=0.5)``.

    Returns:
        tuple[str, float]: The resource, and the fraction of it that is to remain.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(target, Mapping) or len(target) != 1 or next(iter(target)) not in RESOURCES:
        raise ValueError(
            f'target={_shown(target)} must be a dict with exactly one of the keys {RESOURCES}'
            f'{_hint_for_target(target)}'
        )
    ((resource, fraction),) = target.items()
    if not is_fraction(fraction):
        percent = isinstance(fraction, Real) and 1 < fraction <= 100
        example = f'{fraction / 100:g}' if percent else '0.4'
        quotes = ', without quotes' if isinstance(fraction, str) else ''
        raise ValueError(
            f'target={target!r}: {resource} must be a fraction of the dense model above 0 and '
            f'at most 1, for example target=dict({resource}={example}){quotes}'
        )
    return resource, float(fraction)


def check_max_pruning_ratio(value: object) -> None:
    """Raise ValueError if the largest share that a group may lose is no number in (0, 1]."""
    if not is_fraction(value):
        raise ValueError(
            f'max_pruning_ratio={value!r} must be a number above 0 and at most 1, for example '
            f'0.9: a layer then keeps a tenth of its channels or more'
        )


def is_fraction(value: object) -> bool:
    """Return whether a value is a number above 0 and at most 1."""
    # numpy's float32 is no Real. True is one, but no fraction.
    number = isinstance(value, Real | np.floating) and not isinstance(value, bool)
    return number and 0 < value <= 1


def _hint_for_target(target: object) -> str:
    """Return what to write instead of a target that has no resource, two, or an unknown one."""
    if not isinstance(target, Mapping):
        fraction = target if is_fraction(target) else 0.4
        return f'; write target=dict(params={fraction}) or target=dict(flops={fraction})'
    if set(target) == set(RESOURCES):
        return (
            '; leave one of them out, and over a base config that has the other one write '
            'target=dict(_delete_=True, flops=0.5)'
        )
    unknown = [key for key in target if key not in RESOURCES]
    return did_you_mean(unknown[0], RESOURCES) if unknown else '; write target=dict(params=0.4)'


def _shown(value: object) -> str:
    return f'a {type(value).__name__}' if isinstance(value, Tensor | nn.Module) else repr(value)
