# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Cut a model and its optimizer state down to a structure by slicing tensors."""

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from numbers import Number

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from ..errors import OptimizerStateError, StructureError
from .rules.layers import WHOLE_GROUPS_KEY, removes_whole_groups
from .structure import META_KEY, Keep, named_tensors

# Attributes of modules of mmdet and mmpretrain that hold a number of channels have one of these
# words in their names (out_channels, embed_dims, num_heads), and none of IMAGE_WORDS (img_width).
CHANNEL_WORDS = re.compile(r'channels|features|planes|dims|width|heads')
IMAGE_WORDS = re.compile(r'max|min|img|image|height|pixel')
REMEDY = 'the config must build the model that was pruned, before pruning'


def check_states(optimizers: Iterable[Optimizer]) -> None:
    """Raise OptimizerStateError if an optimizer keeps what cannot be cut with its parameter.

    Args:
        optimizers (Iterable[Optimizer]): Those whose state is to be cut.

    Raises:
        OptimizerStateError: Naming the optimizer, the entry and the remedy.
    """
    for optimizer in optimizers:
        for entry in uncuttable_state(optimizer):
            raise OptimizerStateError(
                f'optim_wrapper.optimizer: {type(optimizer).__name__} keeps {entry}, which cannot '
                f'be cut with it; use SGD, Adam or AdamW'
            )


def uncuttable_state(optimizer: Optimizer) -> Iterator[str]:
    """Yield the entries of an optimizer's state that cannot follow a cut.

    What can are tensors of the shape of their parameter, which are sliced like it, and single
    numbers, as counts of steps, which are left alone. A tensor of another shape, a list of tensors
    or an object may be anything: factored moments, preconditioners, a flattened buffer.

    Args:
        optimizer (Optimizer): The optimizer.

    Yields:
        str: The entry, what it is, and the shape of the parameter.
    """
    for owner, state in optimizer.state.items():
        if not isinstance(owner, Tensor):  # MADGRAD counts its steps under a name
            if not _is_single(state):
                yield f'{owner!r}, {_description(state)}, for no single parameter'
            continue
        entries = state if isinstance(state, Mapping) else {'state': state}
        for key, value in entries.items():
            follows = isinstance(value, Tensor) and value.shape == owner.shape
            if not follows and not _is_single(value):
                shape = tuple(owner.shape)
                yield f'{key!r}, {_description(value)}, for a parameter of shape {shape}'


def _is_single(value: object) -> bool:
    """Return whether a value is a number, a name or the like, or consists of such alone."""
    if isinstance(value, Tensor):
        return value.numel() <= 1
    if isinstance(value, Mapping):
        return all(_is_single(item) for item in value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return all(_is_single(item) for item in value)
    return value is None or isinstance(
        value, Number | str | np.generic | torch.dtype | torch.device
    )


def _description(value: object) -> str:
    """Return what a value is, as a part of a sentence."""
    if isinstance(value, Tensor):
        return f'a tensor of shape {tuple(value.shape)}'
    return f'an object of type {type(value).__name__}'


def check_dense(model: nn.Module, structure: Mapping) -> None:
    """Raise StructureError if a model does not have as many parameters as a structure says.

    Args:
        model (nn.Module): The dense model.
        structure (Mapping): What it is to be cut to.

    Raises:
        StructureError: If the numbers before or after the cut differ, naming both.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    expected = structure['dense'].get('params')
    if parameters != expected:
        raise StructureError(
            f'{META_KEY}: the structure is of a model of {expected} parameters and this one has '
            f'{parameters}: {REMEDY}'
        )
    reached = structure['reached'].get('params')
    left = _parameters_left(model, structure['keep'])
    # `reached` is a rounded quotient: times the dense number it is within half a parameter.
    if isinstance(reached, float | int) and abs(reached * expected - left) > 0.5:
        raise StructureError(
            f'{META_KEY}.keep leaves {left} parameters, and {META_KEY}.reached says '
            f'{reached * expected:.0f}: the structure was damaged or edited; take the checkpoint '
            f'as it was written'
        )


def _parameters_left(model: nn.Module, keep: Keep) -> int:
    """Return the number of parameters that a cut leaves."""
    left = 0
    for name, parameter in model.named_parameters():
        kept = keep.get(name, {})
        left += math.prod(len(kept.get(axis, range(n))) for axis, n in enumerate(parameter.shape))
    return left


def check_fits(model: nn.Module, keep: Keep, attrs: Mapping[str, Mapping[str, int]]) -> None:
    """Raise StructureError if a structure was made for another model; nothing is changed.

    Args:
        model (nn.Module): The dense model.
        keep (dict): Tensor name to axis to kept indices.
        attrs (dict): Module name to attribute to channel count.

    Raises:
        StructureError: Naming the tensor or module, and the remedy.
    """
    tensors, modules = named_tensors(model), dict(model.named_modules())
    for name, axes in keep.items():
        if name not in tensors:
            raise StructureError(
                f'{META_KEY}.keep names {name!r}, which the model lacks: {REMEDY}'
            )
        for axis, index in axes.items():
            shape = tuple(tensors[name].shape)
            if axis > 1 and is_layer(modules[name.rpartition('.')[0]]):
                raise StructureError(
                    f'{META_KEY}.keep[{name!r}][{axis}] would cut a kernel, which has no channels '
                    f'there'
                )
            if not 0 <= axis < len(shape) or index[-1] >= shape[axis]:
                raise StructureError(
                    f'{META_KEY}.keep[{name!r}][{axis}] goes up to index {index[-1]}, and the '
                    f'tensor of the model has the shape {shape}: {REMEDY}'
                )
    counts = channel_counts(model, keep)
    for name, expected in counts.items():
        for attribute in expected.keys() - attrs.get(name, {}).keys():
            raise StructureError(
                f'{META_KEY}.attrs does not name {name}.{attribute}, of which '
                f'{expected[attribute]} are kept: take the checkpoint as it was written'
            )
    for name, attributes in attrs.items():
        for attribute, value in attributes.items():
            present = getattr(modules.get(name), attribute, None)
            expected = counts.get(name, {}).get(attribute, value)
            known = counts.get(name, {}).keys() | channel_attributes(modules.get(name)).keys()
            if type(present) is not int or attribute not in known:
                raise StructureError(
                    f'{META_KEY}.attrs names {name}.{attribute}, which is not a number of '
                    f'channels of the model: {REMEDY}'
                )
            if value != expected or not 0 < value <= present:
                raise StructureError(
                    f'{META_KEY}.attrs sets {name}.{attribute} to {value}, and the model has '
                    f'{present} there, {expected} of them kept: {REMEDY}'
                )


@torch.no_grad()
def cut(
    model: nn.Module,
    keep: Keep,
    attrs: Mapping[str, Mapping[str, int]],
    optimizers: Iterable[Optimizer] = (),
) -> None:
    """Slice parameters, their gradients, buffers and optimizer state, in place.

    Parameters keep their identity, so whatever refers to them (parameter groups with their
    settings, schedulers, moving averages) goes on without being told.

    Args:
        model (nn.Module): A dense model.
        keep (dict): Tensor name to axis to kept indices.
        attrs (dict): Module name to attribute to channel count, see :func:`channel_counts`.
        optimizers (Iterable[Optimizer]): Those whose state is to follow.

    Raises:
        StructureError: If the structure does not fit; nothing is changed then.
        OptimizerStateError: If an optimizer's state cannot follow; nothing is changed then.
    """
    optimizers = list(optimizers)
    check_fits(model, keep, attrs)
    check_states(optimizers)
    tensors, modules = named_tensors(model), dict(model.named_modules())
    states = [optimizer.state for optimizer in optimizers]
    for module in {modules[name.rpartition('.')[0]] for name in keep}:
        if _is_convolution(module) and module.groups > 1:
            # Noted, since the ratio that decides it changes with the cut.
            whole = removes_whole_groups(
                module.groups, module.in_channels // module.groups, module
            )
            setattr(module, WHOLE_GROUPS_KEY, whole)
    for name, axes in keep.items():
        tensor, shape = tensors[name], tensors[name].shape
        for state in states:
            for key, value in state.get(tensor, {}).items():
                if isinstance(value, Tensor) and value.shape == shape:
                    state[tensor][key] = _sliced(value, axes)
        gradient, tensor.grad = tensor.grad, None
        sliced = _sliced(tensor.data, axes)
        # A graph that is still alive holds a gradient accumulator of the dense shape, and a later
        # backward pass would fail on it. PyTorch makes a new one when the dtype of .data changes,
        # not when its shape does; so the dtype changes for a moment.
        other_dtype = torch.float32 if sliced.dtype != torch.float32 else torch.float64
        tensor.data = sliced.new_empty(0, dtype=other_dtype)
        tensor.data = sliced
        if gradient is not None:  # of an accumulation that the cut interrupts
            tensor.grad = _sliced(gradient, axes)
    for name, attributes in attrs.items():
        for attribute, value in attributes.items():
            setattr(modules[name], attribute, value)


def _sliced(tensor: Tensor, axes: Mapping[int, list[int]]) -> Tensor:
    """Return the kept indices of a tensor, as memory of its own so that the rest is freed."""
    for axis, index in axes.items():
        tensor = tensor.index_select(axis, torch.tensor(index, device=tensor.device))
    return tensor.contiguous()


def channel_counts(model: nn.Module, keep: Keep) -> dict[str, dict[str, int]]:
    """Return the channel counts that modules keep as attributes, as they are after a cut.

    Args:
        model (nn.Module): The dense model.
        keep (dict): Tensor name to axis to kept indices.

    Returns:
        dict[str, dict[str, int]]: Module name to attribute to count, where it changes.
    """
    modules = dict(model.named_modules())
    new_sizes: dict[str, dict[str, dict[int, int]]] = {}
    for name, axes in keep.items():
        module, _, tensor = name.rpartition('.')
        new_sizes.setdefault(module, {})[tensor] = {a: len(i) for a, i in axes.items()}
    attrs = {}
    for name, sizes in new_sizes.items():
        counts = _counts(modules[name], sizes)
        changed = {a: n for a, n in counts.items() if getattr(modules[name], a) != n}
        if changed:
            attrs[name] = changed
    return attrs


def _is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution; the deformable ones of mmcv are no _ConvNd."""
    names = ('groups', 'in_channels', 'out_channels')
    counts = all(type(getattr(module, name, None)) is int for name in names)
    weight = getattr(module, 'weight', None)
    return counts and isinstance(weight, Tensor) and weight.dim() > 2


def _is_transposed(module: nn.Module) -> bool:
    """Return whether a convolution is transposed: its weight is [in, out / groups, ...]."""
    return getattr(module, 'transposed', False)


def is_layer(module: nn.Module) -> bool:
    """Return whether a module's channel counts follow from the shapes of its own tensors."""
    return _is_convolution(module) or isinstance(module, nn.Linear | _NormBase | nn.GroupNorm)


def channel_attributes(module: nn.Module | None) -> dict[str, int]:
    """Return the integer attributes of a module that are named like a number of channels."""
    return {
        attribute: value
        for attribute, value in (vars(module) if module is not None else {}).items()
        if type(value) is int
        and CHANNEL_WORDS.search(attribute)
        and not IMAGE_WORDS.search(attribute)
    }


def _counts(module: nn.Module, sizes: dict[str, dict[int, int]]) -> dict[str, int]:
    """Return the counts of a module after a cut.

    Args:
        module (nn.Module): The module before the cut.
        sizes (dict): Name of its tensor to axis to length after the cut.
    """
    weight = sizes.get('weight', {})
    if _is_convolution(module):
        # Weights are [out, in / groups, ...], of transposed convolutions [in, out / groups, ...].
        inputs, outputs = module.in_channels, module.out_channels
        per_group = inputs // module.groups, outputs // module.groups
        first, second = weight.get(0), weight.get(1)
        if module.groups > 1 and removes_whole_groups(module.groups, per_group[0], module):
            by_axis_0 = per_group[0 if _is_transposed(module) else 1]
            groups = module.groups if first is None else first // by_axis_0
            counts = (groups * per_group[0], groups * per_group[1])
            return dict(in_channels=counts[0], out_channels=counts[1], groups=groups)
        if _is_transposed(module):
            inputs = first or inputs
            outputs = (second or per_group[1]) * module.groups
        else:
            outputs = first or outputs
            inputs = (second or per_group[0]) * module.groups
        return dict(in_channels=inputs, out_channels=outputs)
    if isinstance(module, nn.Linear):
        return {
            'out_features': weight.get(0, module.out_features),
            'in_features': weight.get(1, module.in_features),
        }
    if isinstance(module, _NormBase):
        return {'num_features': next(iter(sizes.values()))[0]}
    if isinstance(module, nn.GroupNorm):
        channels = next(iter(sizes.values()))[0]
        per_group = module.num_channels // module.num_groups
        return {'num_channels': channels, 'num_groups': channels // per_group}
    # A module of another kind: an attribute that is named like a count and had its value.
    counts = {}
    named = channel_attributes(module)
    for tensor, axes in sizes.items():
        for axis, size in axes.items():
            before = getattr(module, tensor).shape[axis]
            counts.update({a: size for a, value in named.items() if value == before})
    return counts
