# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The networks that a device times as a whole: its layers alone do not tell what else takes time.

Between layers run normalisations, activations and sums, with the values that layers put out; and
weights come from memory, which the timing of one layer, again and again, does not see.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ..latency.measure_latency import NETWORKS
from .groups import PrunableChannels
from .layer_calls import COMMON_STEP, activations, widths


def timed_networks(channels: PrunableChannels) -> dict[str, np.ndarray]:
    """Return the channels that each group has in the networks that are timed as a whole.

    Args:
        channels (PrunableChannels): The channels of the dense model.

    Returns:
        dict[str, np.ndarray]: By the names of ``NETWORKS``, int of shape ``[groups]``: 'dense';
        'half', where every group has half of its channels, in steps of 16 outputs; and 'early',
        where those groups have half that lie in large maps, as far as half as many values go.
        That one has few values and most parameters, so that both can be told apart.
    """
    sizes = channels.group_sizes
    steps = channels.group_steps(COMMON_STEP)
    half = np.minimum(sizes, -(-sizes // (2 * steps)) * steps)
    return dict(zip(NETWORKS, (sizes, half, _early(channels, sizes, half)), strict=True))


def _early(channels: PrunableChannels, sizes: np.ndarray, half: np.ndarray) -> np.ndarray:
    # Without poolings, whose windows are counted by an estimate, which may change.
    timed = [call for call in channels.calls if call.is_timed]
    values, params = activations(timed, len(sizes)), channels.params
    alone = [np.where(np.arange(len(sizes)) == g, half, sizes) for g in range(len(sizes))]
    fewer_values = np.array([values(sizes) - values(counts) for counts in alone], dtype=float)
    fewer_params = np.array([params(sizes) - params(counts) for counts in alone], dtype=float)
    counts = sizes.copy()
    for group in np.argsort(fewer_params / np.maximum(fewer_values, 1), kind='stable'):
        if 2 * (values(sizes) - values(counts)) >= values(sizes) - values(half):
            break
        counts[group] = half[group]
    return counts


def network_digest(channels: PrunableChannels) -> str:
    """Return 16 hexadecimal digits that tell one network from another.

    By its layer calls, and their widths in the networks that are timed as a whole.

    Args:
        channels (PrunableChannels): The channels of the dense model.
    """
    networks = [*timed_networks(channels).values()]
    plain = [
        (
            call.key,
            *(
                round(float(widths(axis, counts)))
                for axis in (call.inputs, call.outputs)
                for counts in networks
            ),
        )
        for call in channels.calls
        if call.is_timed
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:16]
