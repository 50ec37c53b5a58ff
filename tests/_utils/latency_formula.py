# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A small network, and latency tables whose times are known by a formula."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from _utils.nets import Net, randomise
from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.latency.measure_latency import NETWORKS, TABLE_FORMAT
from mmdet_adasap.pruning import (
    LayerCall,
    PrunableChannels,
    network_digest,
    timed_networks,
    widths,
)
from mmdet_adasap.pruning.layer_calls import activations

REFERENCE_NS = 1e6
X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> Net:
    """A residual tie, a depthwise layer, a concat and linear layers."""

    def run(net, x):
        x = F.relu(net.conv1(x))
        x = F.relu(x + net.conv2(x))
        x = F.relu(net.dw(net.conv3(x)))
        x = F.adaptive_avg_pool2d(torch.cat([x, net.side(x)], 1), 2)
        return net.head(F.relu(net.fc(x.flatten(1))))

    return randomise(
        Net(
            run,
            conv1=nn.Conv2d(3, 48, 3, padding=1),
            conv2=nn.Conv2d(48, 48, 3, padding=1),
            conv3=nn.Conv2d(48, 64, 3),
            dw=nn.Conv2d(64, 64, 3, padding=1, groups=64),
            side=nn.Conv2d(64, 16, 1),
            fc=nn.Linear(80 * 4, 40),
            head=nn.Linear(40, 5),
        )
    )


def ratio(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """A layer's time over that of the reference: bilinear, so that a table has it exactly."""
    return 0.001 + 0.0001 * inputs + 0.0002 * outputs + 0.00005 * inputs * outputs


def table_content(
    channels: PrunableChannels,
    step: int = 1,
    time: Callable[[np.ndarray, np.ndarray], np.ndarray] = ratio,
    shape: Sequence[int] = (1, 3, 8, 8),
    networks: tuple[float, ...] | bool = True,
) -> dict:
    """Content of table.json for a model, with the times of a formula.

    Args:
        channels (PrunableChannels): The model's.
        step (int): Of the device.
        time (Callable): Takes inputs and outputs (0 of depthwise layers), gives ratios.
        shape (Sequence[int]): Of the input.
        networks (tuple[float, ...] | bool): Ratios of the dense network and the halved one, and
            of that with half in large maps, which else follows from the values that layers put
            out; True for those of their layers, False for a table that has not timed them.
    """
    sizes = channels.group_sizes
    calls = [call for call in channels.calls if call.is_timed]
    layers: dict = {}
    for call in calls:
        grids = layers.setdefault(call.key, [{step}, {step}])
        for grid, axis in zip(grids, (call.inputs, call.outputs), strict=True):
            grid.add(int(widths(axis, sizes)))
    entries = []
    for key, (inputs, outputs) in layers.items():
        inputs, outputs = sorted(inputs), sorted(outputs)
        entry = {'key': key.to_dict(), 'inputs': inputs}
        if key.group_width is None:
            entry['outputs'] = outputs
            entry['ratios'] = time(np.array(inputs)[:, None], np.array(outputs)).tolist()
        else:
            entry['ratios'] = time(np.array(inputs), 0).tolist()
        entries.append(entry)
    if networks is True:
        networks = [
            nanoseconds(channels.calls, counts, step) / REFERENCE_NS
            for counts in timed_networks(channels).values()
        ]
    elif networks and len(networks) == 2:
        values = activations(channels.calls, len(channels.groups))
        dense, half, early = map(values, timed_networks(channels).values())
        share = (dense - early) / max(dense - half, 1)
        networks = (*networks, networks[0] + share * (networks[1] - networks[0]))
    timed = dict(zip(NETWORKS, networks, strict=True)) if networks else {}
    return {
        'format': TABLE_FORMAT,
        'backend': 'torch',
        'backend_version': '0',
        'device': 'cpu',
        'device_name': 'a formula',
        'threads': 1,
        'dtype': 'float32',
        'clock': 'thread CPU time',
        'rounds': 1,
        'reference_ns': REFERENCE_NS,
        'step': step,
        'spread': 0.0,
        'layers': entries,
        'networks': {network_digest(channels): {'input': list(shape), **timed}},
    }


def formula_table(channels: PrunableChannels, **settings) -> LatencyTable:
    """The same as a table."""
    return LatencyTable(table_content(channels, **settings))


def nanoseconds(calls: Sequence[LayerCall], counts: np.ndarray, step: int = 1) -> float:
    """What all layers take by the formula, at widths rounded up to the step."""
    total = 0.0
    for call in calls:
        inputs, outputs = (
            -(-round(widths(axis, counts)) // step) * step for axis in (call.inputs, call.outputs)
        )
        grouped = call.key.group_width is not None
        total += float(ratio(np.float64(inputs), 0.0 if grouped else outputs)) * REFERENCE_NS
    return total
