# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What tells one layer call from another, when a device times them: all but their widths."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class LayerKey:
    """A kind of layer call: two calls with the same key and the same widths take the same time.

    Args:
        op (str): 'conv', 'conv_transpose' or 'linear'.
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
    def from_dict(cls, plain: Mapping) -> 'LayerKey':
        """Return the key of :meth:`to_dict`."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})
