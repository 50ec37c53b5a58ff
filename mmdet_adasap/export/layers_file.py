# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a device has to time of a model: its layers in several widths, and whole networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from torch import nn

from ..latency.measure_latency import LAYERS_FORMAT
from ..pruning import (
    COMMON_STEP,
    LayerCall,
    LayerKey,
    PrunableChannels,
    attribute_counts,
    copy_model,
    cut,
    indices_from_masks,
    network_digest,
    widths,
)

WIDTHS = 6
"""Widths of an axis that are timed, at most. On nets of mmdet, bilinear tables of five were within
1 to 11 % of all widths in the median."""


def describe_layers(channels: PrunableChannels, shape: Sequence[int], config: str) -> dict:
    """Return the layers of a model and the widths in which to time them, as layers.json has it.

    Args:
        channels (PrunableChannels): Of the dense model.
        shape (Sequence[int]): Of the input that it was traced with, ``[N, 3, H, W]``.
        config (str): The name of the config, for people who read the file.
    """
    sizes = channels.group_sizes
    by_key: dict[LayerKey, list[LayerCall]] = {}
    calls = [call for call in channels.calls if call.is_timed]
    for call in calls:
        by_key.setdefault(call.key, []).append(call)
    layers = []
    for key, same in by_key.items():
        layer = {'key': key.to_dict(), 'inputs': _grid(key, same, 'inputs', sizes)}
        if key.group_width is None:
            layer['outputs'] = _grid(key, same, 'outputs', sizes)
        layers.append({**layer, 'calls': len(same)})
    return {
        'format': LAYERS_FORMAT,
        'config': config,
        'input': [int(length) for length in shape],
        'dtype': calls[0].key.dtype if calls else 'float32',
        'network': network_digest(channels),
        'layers': layers,
        'networks': {},
    }


def _grid(key: LayerKey, calls: Iterable[LayerCall], axis: str, sizes: np.ndarray) -> list[int]:
    """Return the widths of an axis that are timed, ascending."""
    unit = key.groups or key.group_width[0]
    step = math.lcm(COMMON_STEP, unit)
    fixed, found = set(), set()
    for call in calls:
        size = getattr(call, axis)
        most = round(float(widths(size, sizes)))
        fixed.add(most)
        if size[1]:
            points = (step, most / 4, most / 2, most * 3 / 4)
            found |= {min(math.ceil(p / step) * step, most) for p in points}
    largest = max(fixed)
    # Widths that never change are timed as they are, as far as there are few of them.
    found |= fixed if len(fixed) <= WIDTHS else {largest}
    return _thinned(sorted(found))


def _thinned(found: list[int]) -> list[int]:
    """Return at most :data:`WIDTHS` of ascending widths, the ends among them, spread evenly."""
    if len(found) <= WIDTHS:
        return found
    wanted = np.geomspace(found[0], found[-1], WIDTHS)
    chosen = {min(found, key=lambda width: abs(math.log(width / w))) for w in wanted}
    return sorted(chosen | {found[0], found[-1]})


def cut_to_first(model: nn.Module, channels: PrunableChannels, counts: np.ndarray) -> nn.Module:
    """Return a copy whose groups keep their first channels, for the time that it takes.

    Args:
        model (nn.Module): The dense model; left as it is.
        channels (PrunableChannels): Its channels.
        counts (np.ndarray): How many each group keeps, int of shape ``[groups]``.
    """
    kept = [np.arange(n) < count for n, count in zip(channels.group_sizes, counts, strict=True)]
    copy = copy_model(model)
    keep = indices_from_masks(copy, channels.groups, kept)
    cut(copy, keep, attribute_counts(copy, channels, keep, kept))
    return copy
