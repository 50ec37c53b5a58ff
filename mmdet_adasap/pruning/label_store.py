# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Labels of the tensors of a run, by the memory that these are views of."""

import dataclasses

from torch import Tensor, nn

from .channel_ids import ChannelLabel, ChannelUnionFind
from .shape_only import has_storage


class LabelStore:
    """Keeps a label for every tensor that has one, and gives parameters and buffers theirs.

    Labels are kept by storage, offset, shape and stride rather than by object, since ``detach``,
    ``.data`` and views make new objects for the same values. The storages of labelled tensors are
    held until the end, since the memory of a freed one may be given to another tensor.

    Args:
        model (nn.Module): The model that runs.
        nodes (ChannelUnionFind): Gives the nodes of parameters and buffers.

    Attributes:
        reached (set[str]): Names of the parameters and buffers that were asked for.
    """

    def __init__(self, model: nn.Module, nodes: ChannelUnionFind) -> None:
        self.reached: set[str] = set()
        self._nodes = nodes
        self._labels: dict[tuple, ChannelLabel] = {}
        self._held: list[object] = []
        self._names: dict[tuple, str] = {}
        self._parameters = dict(model.named_parameters())
        for name, tensor in (*self._parameters.items(), *model.named_buffers()):
            if has_storage(tensor) and tensor.numel():
                self._names.setdefault(_key(tensor), name)
                # A model may give a parameter other memory (`.data =`).
                self._held.append(tensor.untyped_storage())

    @property
    def unused_parameters(self) -> list[str]:
        """Parameters that took no part in the run."""
        return [name for name in self._parameters if name not in self.reached]

    def get(self, tensor: object) -> ChannelLabel | None:
        """Return the label of a tensor; a parameter or buffer gets its nodes when first asked."""
        if not isinstance(tensor, Tensor) or not has_storage(tensor) or not tensor.numel():
            return None
        key = _key(tensor)
        if key not in self._labels and key in self._names:
            name = self._names[key]
            self.reached.add(name)
            axes = {
                axis: self._nodes.nodes(name, axis, size)
                for axis, size in enumerate(tensor.shape)
                if size > 1  # the only index of an axis cannot be removed
            }
            if axes:
                # Masking zeroes parameters; statistics in buffers keep their values.
                self._labels[key] = ChannelLabel(axes, zero=name in self._parameters)
        return self._labels.get(key)

    def set(self, tensor: Tensor, label: ChannelLabel | None) -> None:
        """Give a tensor a label, or none; parameters and buffers keep theirs."""
        if not has_storage(tensor) or not tensor.numel() or _key(tensor) in self._names:
            return
        if label is None:
            self._labels.pop(_key(tensor), None)
        else:
            self._labels[_key(tensor)] = label
            self._held.append(tensor.untyped_storage())

    def clear_zero_flags(self, written: Tensor) -> None:
        """Mark all views of a storage as not 0 when masked, if what was written is not."""
        label = self.get(written)
        if label is None or label.zero:
            return
        for key in self._views_of(written):
            self._labels[key] = dataclasses.replace(self._labels[key], zero=False)

    def in_memory_of(self, tensor: Tensor) -> list[ChannelLabel]:
        """Return the labels of all views of a tensor's memory."""
        return [self._labels[key] for key in self._views_of(tensor)]

    def move(self, address: int, tensor: Tensor) -> None:
        """Keep the labels of all views of a tensor that ``resize_`` has moved to other memory.

        Args:
            address (int): Where its memory was.
            tensor (Tensor): The tensor, after the move.
        """
        moved = tensor.untyped_storage().data_ptr()
        if moved != address:
            for key in self._views_at(address, tensor):
                self._labels[(moved, *key[1:])] = self._labels.pop(key)

    def _views_of(self, tensor: Tensor) -> list[tuple]:
        return self._views_at(tensor.untyped_storage().data_ptr(), tensor)

    def _views_at(self, address: int, tensor: Tensor) -> list[tuple]:
        """Return the keys of all labelled views of the memory there, on a tensor's device."""
        return [key for key in self._labels if key[0] == address and key[-1] == tensor.device]


def _key(tensor: Tensor) -> tuple:
    """Return what two tensors share only if they are the same view of the same memory."""
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.device,
    )
