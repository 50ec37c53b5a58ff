# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The convolutions and linear layers of a run, as they were called: what a device has to time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from .cost import Cost

COMMON_STEP = 16
"""Step of a device that nobody has told of: CPUs with AVX-512 have it in all three backends, and
matrix units of GPUs in fp16 at least 8."""
WINDOW = 0.33
"""Values that a place of a pooling's window counts as. In PyTorch on one thread of a CPU the three
poolings of YOLOX-s take 0.8 ns a place, and what follows its convolutions 2.5 ns a value."""

Size = tuple[int, dict[int, float]]
"""Length of an axis: the fixed part, and group to indices for each channel that it keeps."""


@dataclass(frozen=True)
class LayerKey:
    """A kind of layer call: two calls with the same key and the same widths take the same time.

    Args:
        op (str): 'conv', 'conv_transpose' or 'linear'; or 'max_pool', which is not timed.
        kernel (tuple[int, ...]): Its size, one number for each spatial axis; () if linear.
        stride (tuple[int, ...]): Likewise.
        padding (tuple[int, ...]): Likewise.
        dilation (tuple[int, ...]): Likewise.
        groups (int): Groups of a convolution whose groups all stay, 1 or more; 0 if
            ``group_width`` says how they go.
        group_width (tuple[int, int], optional): Inputs and outputs of each group, where whole
            groups are removed; (1, 1) is depthwise.
        batch (int): Images, or rows if linear.
        map (tuple[int, ...]): Height and width of the input; () if linear.
        dtype (str): Of the input, as 'float32'.
    """

    op: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    group_width: tuple[int, int] | None
    batch: int
    map: tuple[int, ...]
    dtype: str

    def to_dict(self) -> dict:
        """Return the key as plain data, as it stands in layers.json and table.json."""
        found = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()}

    @classmethod
    def from_dict(cls, plain: Mapping) -> LayerKey:
        """Return the key of :meth:`to_dict`."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer; a head that runs on five maps is called five times.

    Args:
        name (str): The layer.
        key (LayerKey): What tells it from other calls, but for its widths.
        inputs (Size): Input channels.
        outputs (Size): Output channels.
    """

    name: str
    key: LayerKey
    inputs: Size
    outputs: Size

    @property
    def is_timed(self) -> bool:
        """Whether a device times it by itself: poolings belong to what is between the layers."""
        return self.key.op != 'max_pool'

    @property
    def places(self) -> int:
        """Values of one output channel: batch times the places of the map."""
        key, places = self.key, self.key.batch
        for size, kernel, stride, padding, dilation in zip(
            key.map, key.kernel, key.stride, key.padding, key.dilation, strict=True
        ):
            if key.op == 'conv_transpose':
                places *= (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            else:
                places *= (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        return places

    def hold(self, sizes: Mapping[int, int], number: Mapping[int, int]) -> LayerCall:
        """Return the call where some groups always keep their channels, see :func:`hold_size`."""
        inputs, outputs = (hold_size(s, sizes, number) for s in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)


def hold_size(size: Size, sizes: Mapping[int, int], number: Mapping[int, int]) -> Size:
    """Return a length where some groups always keep a certain number of channels.

    Args:
        size (Size): The length.
        sizes (Mapping[int, int]): Group to the channels that it keeps.
        number (Mapping[int, int]): Each other group to its new number.
    """
    fixed, per_channel = size
    held = sum(n * sizes[g] for g, n in per_channel.items() if g in sizes)
    return fixed + round(held), {number[g]: n for g, n in per_channel.items() if g not in sizes}


def widths(size: Size, counts: np.ndarray | Sequence[np.ndarray]) -> np.ndarray | float:
    """Return the length of an axis for the channels that each group keeps.

    Args:
        size (Size): The length.
        counts (np.ndarray | Sequence[np.ndarray]): Kept channels by group: one number each, or
            arrays that broadcast against each other.
    """
    fixed, per_channel = size
    return fixed + sum(n * counts[g] for g, n in per_channel.items())


def activations(calls: Iterable[LayerCall], num_groups: int) -> Cost:
    """Return how many values all layers put out, given how many channels each group keeps.

    What runs between layers (normalisation, activation, sums, pooling) takes time with them. A
    large window of a pooling counts as several values.
    """
    cost = Cost(num_groups)
    for call in calls:
        weight = 1.0 if call.is_timed else WINDOW * math.prod(call.key.kernel)
        cost.add(weight * call.places, call.outputs)
    return cost
