# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Draw what trial cuts keep, so that no two widths of a model shrink alike.

Code may take one width for another: ``q(x).reshape(x.shape)`` runs as long as both layers keep
equally many channels. A trial in which they do proves nothing of a cut in which they do not.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from torch import nn

from .groups import ChannelGroup
from .structure import named_tensors

MAX_CUTS = 8
"""Trial cuts of one model at most, a limit of our own. The first separates as many groups of one
size as that has channels, and each that follows multiplies this; with 8 it is 128 for a size of
2, the worst case."""
MARGIN = 8
"""A trial keeps an eighth to seven eighths of a group, an own choice. Where nearly all channels
go, an activation may have nothing left to pass on, and an error would not show."""

Width = tuple[tuple[int, Fraction], ...]
"""Groups on an axis, and the part of it that each makes up; the rest of the axis stays."""


def trial_cuts(
    model: nn.Module, groups: Sequence[ChannelGroup], seed: int = 0
) -> list[list[np.ndarray]]:
    """Return trial cuts, in one of which at least any two widths keep different shares.

    All of them are the same in every process. The first one cuts every group of two or more
    channels. More than one are drawn only where a group has too few channels.

    Args:
        model (nn.Module): The dense model.
        groups (Sequence[ChannelGroup]): Its channel groups.
        seed (int): Of the random numbers. Defaults to 0.

    Returns:
        list[list[np.ndarray]]: bool of shape ``[size]`` for each group, for each cut.
    """
    rng = np.random.default_rng(seed)
    widths = _widths(model, groups)
    shares: list[tuple[Fraction, ...]] = [()] * len(groups)  # of every group in every cut
    cuts: list[list[np.ndarray]] = []
    while len(cuts) < MAX_CUTS:
        counts = _draw_counts(groups, shares, rng)
        shares = [
            (*before, Fraction(count, group.size))
            for before, count, group in zip(shares, counts, groups, strict=True)
        ]
        # By chance rather than regular, which could hide a wrong tie.
        cuts.append(
            [rng.permutation(g.size) < count for g, count in zip(groups, counts, strict=True)]
        )
        if _all_differ(widths, shares):
            break
    return cuts


def _draw_counts(
    groups: Sequence[ChannelGroup], shares: list[tuple[Fraction, ...]], rng: np.random.Generator
) -> list[int]:
    """Draw how many channels each group keeps: a share that no group like it so far has."""
    counts = [0] * len(groups)
    used: Counter = Counter()
    # Those with the least choice first.
    for g in sorted(range(len(groups)), key=lambda g: groups[g].size):
        size, before = groups[g].size, shares[g]
        least = max(1, size // MARGIN)
        most = max(1, size - least)
        if size == 2 and before:  # the only choice that is left: to be cut or not
            most = 2
        options = rng.permutation(np.arange(least, most + 1)).tolist()
        # Primes first: a wrong width that divides the number of entries would be taken for right,
        # as in ``x.reshape(n, -1)``.
        options.sort(key=lambda n: not _is_prime(n))
        fresh = (n for n in options if not used[before, Fraction(n, size)])
        rarest = next(fresh, None)
        if rarest is None:
            rarest = min(options, key=lambda n: used[before, Fraction(n, size)])
        counts[g] = rarest
        used[before, Fraction(rarest, size)] += 1
    return counts


def _is_prime(number: int) -> bool:
    """Return whether a number is a prime above 3; sizes of images have factors of 2 and 3."""
    return number > 3 and all(number % n for n in range(2, int(number**0.5) + 1))


def _widths(model: nn.Module, groups: Sequence[ChannelGroup]) -> set[Width]:
    """Return the different axes of a model that shrink; multiples of one another are one."""
    lengths = {name: tensor.shape for name, tensor in named_tensors(model).items()}
    axes: dict[tuple[str, int], list[tuple[int, Fraction]]] = {}
    for g, group in enumerate(groups):
        if group.size == 1:  # never removed
            continue
        for member in group.members:
            length = lengths[member.name][member.axis]
            part = Fraction(member.index.size, length)
            axes.setdefault((member.name, member.axis), []).append((g, part))
    return {tuple(sorted(parts)) for parts in axes.values()}


def _all_differ(widths: set[Width], shares: list[tuple[Fraction, ...]]) -> bool:
    """Return whether no two widths have lost the same share in all cuts."""
    cuts = range(len(shares[0]) if shares else 0)
    lost = {
        tuple(sum(part * (1 - shares[g][cut]) for g, part in width) for cut in cuts)
        for width in widths
    }
    return len(lost) == len(widths)
