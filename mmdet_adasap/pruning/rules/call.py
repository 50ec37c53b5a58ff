# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The arguments of a rule, and its registration."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ..channel_ids import ChannelLabel, ChannelUnionFind
from ..split_choices import SplitChoices
from .names import as_names, check_extension, check_operator

Rule = Callable[['Call'], 'ChannelLabel | list[ChannelLabel | None] | None']
RULES: dict[str, Rule] = {}
"""Rules by the name of the operation in its schema, e.g. 'aten::convolution'."""
EXTENSION_RULES: dict[str, Rule] = {}
"""Rules by the name of the function in a compiled extension, e.g. 'roi_align_forward'."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for all overloads of operations.

    Args:
        *names (str): Names as in the schema, ``'namespace::operation'``; the namespace
            ``aten`` may be left out. A later rule takes the place of an earlier one.

    Raises:
        ValueError: If no operator has such a name.
    """
    names = as_names(names, 'rule', 'relu')
    full = [name if '::' in name else f'aten::{name}' for name in names]
    return _register(RULES, full, check_operator)


def extension_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for functions of ``mmcv._ext``, which PyTorch does not dispatch.

    They write into some of their arguments, so these rules call :meth:`Call.write`.

    Raises:
        ValueError: If mmcv is loaded and has no function of such a name.
    """
    names = as_names(names, 'extension_rule', 'roi_align_forward')
    return _register(EXTENSION_RULES, names, check_extension)


def _register(
    rules: dict[str, Rule], names: list[str], check: Callable[[str], None]
) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        # The package's own rules also name operators that only other releases of PyTorch have.
        defined_in = getattr(function, '__module__', None) or ''
        if not defined_in.startswith(f'{__package__}.'):
            for name in names:
                check(name)
        rules.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass
class Call:
    """One operation of a traced run, the argument of a rule.

    Args:
        func (Callable): The operator overload.
        name (str): Its name, as in :func:`rule`.
        args (tuple): Its positional arguments. Of a tensor whose shape or strides it changes in
            place, this is a view with those from before.
        kwargs (dict): Its keyword arguments.
        out: What it returned.
        nodes (ChannelUnionFind): Collects ties and freezes.
        label_of (Callable): Returns the label of a tensor, or None.
        labels_in_memory (Callable): Returns the labels of all views of a tensor's memory.
        write (Callable): Takes a tensor and its new label, for tensors that are not returned.
        splits (SplitChoices): Along which axes channels live on after a view.
        module_name (str): Name of the running module.
        module (nn.Module, optional): That module.
        count_flops (Callable): Takes ``(coefficient, *(nodes, length))``: multiply-accumulates
            are the coefficient times the lengths of axes, which shrink with their nodes. See
            ``build_channels`` in ``groups.py``.
        record_layer (Callable): Takes the key of a convolution or linear layer, and ``(nodes,
            length, times)`` of its inputs and of its outputs: the length counts so often.
    """

    func: Callable
    name: str
    args: tuple
    kwargs: dict
    out: object
    nodes: ChannelUnionFind
    label_of: Callable[[Tensor], ChannelLabel | None]
    labels_in_memory: Callable[[Tensor], list[ChannelLabel]]
    write: Callable[[Tensor, ChannelLabel | None], None]
    splits: SplitChoices
    module_name: str
    module: nn.Module | None
    count_flops: Callable[..., None]
    record_layer: Callable[..., None]

    @property
    def operation(self) -> str:
        """The name without its namespace and the mark of in-place operations."""
        return self.name.rpartition('::')[2].rstrip('_')

    def arg(self, position: int, default: object = None, name: str = '') -> object:
        """An argument by position, or by name where it was given by name."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def freeze(
        self, label: ChannelLabel | None, axes: Iterable[int] | None = None, why: str = ''
    ) -> None:
        """Freeze all axes of a label, or those given.

        Args:
            label (ChannelLabel, optional): The label; None freezes nothing.
            axes (Iterable[int], optional): Defaults to all axes of the label.
            why (str): Reason, to be followed by "in MODULE". Defaults to the operation.
        """
        if label is None:
            return
        for axis in list(label.axes) if axes is None else axes:
            if axis in label.axes:
                self.nodes.freeze(label.axes[axis], f'{why or self.name} in {self.module_name}')

    def tie(self, left: np.ndarray | None, right: np.ndarray | None) -> None:
        """Tie two node vectors; None is an axis that cannot shrink, and freezes the other."""
        if left is None and right is None:
            return
        if left is None or right is None:
            kept = right if left is None else left
            self.nodes.freeze(kept, f'{self.name} with a fixed operand in {self.module_name}')
        else:
            self.nodes.tie(left, right)

    def tie_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """Tie the rows of an array, position by position.

        Args:
            blocks (np.ndarray): Nodes, int64 of shape ``[blocks, positions]``.

        Returns:
            np.ndarray: The first row.
        """
        for block in blocks[1:]:
            self.nodes.tie(blocks[0], block)
        return blocks[0]


def label_axes(label: ChannelLabel | None) -> dict[int, np.ndarray]:
    """Return node vectors by axis; none for a tensor without a label."""
    return {} if label is None else label.axes


def is_zero(label: ChannelLabel | None) -> bool:
    """Return whether entries of masked channels are 0."""
    return label is not None and label.zero


def is_fresh(label: ChannelLabel | None) -> bool:
    """Return whether nothing has been written yet into a tensor that a model created."""
    return label is not None and not label.axes


def make_label(axes: dict[int, np.ndarray], zero: bool) -> ChannelLabel | None:
    """Return a label, or None where no axis can shrink."""
    return ChannelLabel(axes, zero) if axes else None
