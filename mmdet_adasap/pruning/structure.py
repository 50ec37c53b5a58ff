# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The pruned shape of a model as plain data, as ``checkpoint['meta']`` holds it.

A structure is a dict of str, int, float and list::

    version   1
    phase     'warmup', 'prune' or 'finetune'; the model is cut from 'finetune' on
    target    {'params': 0.4}, or {'flops': 0.5}, or {'latency': 0.6, 'table': digest of the table}
    reached   {'params': 0.3994, 'flops': 0.4712}, fractions of the dense model
    dense     {'params': 26285486, 'flops': 30582398400} of the model before any cut; FLOPs are
              multiply-accumulates for the input that the channels were found with
    keep      {parameter or buffer: {axis: [kept indices of the dense model]}}
    attrs     {module: {attribute: int}}, counts of channels or of attention heads that modules
              keep for themselves
    digest    SHA-256 of keep and attrs, so that a damaged or edited one is noticed; a structure
              without it is taken, and checked against the model alone
    latency   {'table': digest, 'device': text, 'dense_ms', 'predicted_ms', 'measured_ms': float},
              the last one None where nothing was timed; absent if the target has no latency
    start     the structure of the slim model that is pruned again; absent if a dense one is

What else resuming needs is no part of it: AdaSAPHook writes its settings and what the criterion
has observed into ``checkpoint['mmdet_adasap']``.

Until the phase 'finetune' tensors have their shape at the start, which is the dense one or that of
``start``, and whatever is not in ``keep`` is zero.
"""

import hashlib
import json
import math
from collections.abc import Mapping

import numpy as np
from torch import nn

from ..errors import StructureError
from .groups import ChannelGroup, removed_indices

META_KEY = 'mmdet_adasap'
VERSION = 1
PHASES = ('warmup', 'prune', 'finetune')

Keep = dict[str, dict[int, list[int]]]
"""Tensor name to axis to the kept indices, ascending; an axis that loses none is not in it."""


def named_tensors(model: nn.Module) -> dict:
    """Return parameters and buffers by the first name that each has."""
    return {**dict(model.named_buffers()), **dict(model.named_parameters())}


_TAG = '_mmdet_adasap_structure'
"""Attribute of a slim model."""


def tag_model(model: nn.Module, structure: Mapping) -> None:
    """Attach to a slim model the structure that it was cut to, so that it can be pruned again."""
    setattr(model, _TAG, structure)


def tagged_structure(model: nn.Module) -> Mapping | None:
    """Return the structure that a model was cut to; None if it is dense."""
    return getattr(model, _TAG, None)


def compose(first: Keep, then: Keep) -> Keep:
    """Combine two cuts into one of the dense model.

    Args:
        first (dict): Kept indices of the dense model.
        then (dict): Kept indices of the model that ``first`` has left.

    Returns:
        dict: Kept indices of the dense model after both.

    Examples:
        >>> compose({'w': {0: [1, 3, 5]}}, {'w': {0: [0, 2]}})
        {'w': {0: [1, 5]}}
    """
    keep = {name: dict(axes) for name, axes in first.items()}
    for name, axes in then.items():
        for axis, index in axes.items():
            before = first.get(name, {}).get(axis)
            kept = index if before is None else [before[i] for i in index]
            keep.setdefault(name, {})[axis] = kept
    return keep


def relative_to(keep: Keep, first: Keep) -> Keep:
    """Return the cut that leads from ``first`` to ``keep``; the inverse of :func:`compose`.

    Args:
        keep (dict): Kept indices of the dense model after both cuts.
        first (dict): Those after the first one.

    Returns:
        dict: Kept indices of the model that ``first`` has left.

    Examples:
        >>> relative_to({'w': {0: [1, 5]}}, {'w': {0: [1, 3, 5]}})
        {'w': {0: [0, 2]}}

    Raises:
        StructureError: If ``keep`` holds on to what ``first`` has removed.
    """
    then: Keep = {}
    for name, axes in keep.items():
        for axis, index in axes.items():
            before = first.get(name, {}).get(axis)
            if before is None:
                then.setdefault(name, {})[axis] = index
                continue
            if not set(index) <= set(before):
                raise StructureError(
                    f'{META_KEY}.keep[{name!r}][{axis}] keeps what {META_KEY}.start has removed; '
                    f'take the checkpoint as it was written'
                )
            if len(index) < len(before):
                then.setdefault(name, {})[axis] = np.searchsorted(before, index).tolist()
    return then


def indices_from_masks(
    model: nn.Module, groups: list[ChannelGroup], kept: list[np.ndarray]
) -> Keep:
    """Return the kept indices of every axis that loses some.

    Args:
        model (nn.Module): The dense model.
        groups (list[ChannelGroup]): Its channel groups.
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group.

    Returns:
        dict: Tensor name to axis to ascending indices.
    """
    tensors = named_tensors(model)
    return {
        name: {
            axis: np.setdiff1d(np.arange(tensors[name].shape[axis]), removed).tolist()
            for axis, removed in axes.items()
        }
        for name, axes in removed_indices(groups, kept).items()
    }


def masks_from_structure(groups: list[ChannelGroup], keep: Keep) -> list[np.ndarray]:
    """Return the kept channels of each group; the inverse of :func:`indices_from_masks`.

    Args:
        groups (list[ChannelGroup]): The groups of the model.
        keep (dict): Tensor name to axis to kept indices.

    Returns:
        list[np.ndarray]: bool of shape ``[size]`` for each group.

    Raises:
        StructureError: If ``keep`` splits channels that the model holds together, or removes
            what is in no group.
    """
    removable = {(member.name, member.axis) for group in groups for member in group.members}
    for name, axes in keep.items():
        for axis in axes:
            if (name, axis) not in removable:
                raise StructureError(
                    f'{META_KEY}.keep[{name!r}][{axis}] shortens what the model must keep whole; '
                    f'the checkpoint was written for another model'
                )
    masks = []
    for group in groups:
        kept = None
        for member in group.members:
            axis = keep.get(member.name, {}).get(member.axis)
            present = np.ones(member.index.shape, dtype=bool)
            if axis is not None:
                present = np.isin(member.index, axis)
            kept = present.all(1) if kept is None else kept
            # All k entries of a channel, in all members, are kept or none.
            if not (present == kept[:, None]).all():
                raise StructureError(
                    f'{META_KEY}.keep[{member.name!r}][{member.axis}] splits channels that '
                    f'the model ties together; the checkpoint was written for another model'
                )
        masks.append(kept)
    return masks


def is_cut(structure: Mapping) -> bool:
    """Return whether removed channels are cut off, rather than masked."""
    return structure['phase'] == 'finetune'


def last_cut(structure: Mapping) -> Mapping | None:
    """Return the structure of the last cut, which gives tensors their shape; None if dense."""
    return structure if is_cut(structure) else structure.get('start')


def with_integer_axes(structure: object) -> object:
    """Return a structure with integer axes, of which JSON makes strings; others as they are.

    What is no structure is returned as it is, for :func:`check_structure` to name the fault.
    """
    keep = structure.get('keep') if isinstance(structure, Mapping) else None
    if not isinstance(keep, Mapping):
        return structure
    if 'start' in structure:
        structure = {**structure, 'start': with_integer_axes(structure['start'])}

    def integer(axis: object) -> object:
        return int(axis) if isinstance(axis, str) and axis.isascii() and axis.isdigit() else axis

    read = {
        name: {integer(a): index for a, index in axes.items()}
        if isinstance(axes, Mapping)
        else axes
        for name, axes in keep.items()
    }
    return {**structure, 'keep': read}


def digest(structure: Mapping) -> str:
    """Return a SHA-256 of what a structure keeps, its first 16 hexadecimal digits."""
    text = json.dumps([structure['keep'], structure['attrs']], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_structure(structure: object) -> None:
    """Raise StructureError if this is not a structure of the version that this package reads.

    Args:
        structure (object): What a checkpoint or file holds.

    Raises:
        StructureError: Naming the entry and what it should be.
    """
    if not isinstance(structure, Mapping):
        raise StructureError(f"checkpoint['meta'][{META_KEY!r}] is not a dict")
    if structure.get('version') != VERSION:
        raise StructureError(
            f'{META_KEY}.version is {structure.get("version")!r} and this package reads '
            f'{VERSION}; load the checkpoint with the mmdet_adasap that wrote it'
        )
    if structure.get('phase') not in PHASES:
        raise StructureError(
            f'{META_KEY}.phase is {structure.get("phase")!r}, not one of {PHASES}'
        )
    for key in ('target', 'reached', 'dense', 'keep', 'attrs'):
        if not isinstance(structure.get(key), Mapping):
            raise StructureError(f'{META_KEY}.{key} is missing or not a dict')
    _check_numbers(structure)
    if 'latency' in structure:
        _check_latency(structure['latency'])
    for name, axes in structure['keep'].items():
        if not isinstance(axes, Mapping):
            raise StructureError(f'{META_KEY}.keep[{name!r}] is not a dict of axes')
        for axis, index in axes.items():
            where = f'{META_KEY}.keep[{name!r}][{axis!r}]'
            integers = isinstance(index, list) and all(type(i) is int for i in index)
            if type(axis) is not int or not integers:
                raise StructureError(f'{where} is not a list of integers under an integer axis')
            if not index or index[0] < 0 or sorted(set(index)) != index:
                raise StructureError(f'{where} must be one or more ascending indices')
    for module, attributes in structure['attrs'].items():
        if not isinstance(attributes, Mapping) or not all(
            type(value) is int for value in attributes.values()
        ):
            raise StructureError(f'{META_KEY}.attrs[{module!r}] is not a dict of integers')
    if structure.get('digest', digest(structure)) != digest(structure):
        raise StructureError(
            f'{META_KEY}.digest does not fit keep and attrs: the structure was damaged or edited; '
            f'take the checkpoint as it was written, or leave digest out if the edit is meant'
        )
    if 'start' in structure:
        _check_start(structure)


def _check_numbers(structure: Mapping) -> None:
    """Check the numbers in ``reached`` and ``dense``."""
    for resource, left in structure['reached'].items():
        if type(left) not in (int, float) or not 0 < left <= 1:
            raise StructureError(
                f'{META_KEY}.reached.{resource} is {left!r}, no fraction of the dense model'
            )
    for resource, count in structure['dense'].items():
        if type(count) is not int or count < 1:
            raise StructureError(f'{META_KEY}.dense.{resource} is {count!r}, no number of them')


def _check_latency(latency: object) -> None:
    """Check what is said of the device that a model was pruned for."""
    if not isinstance(latency, Mapping):
        raise StructureError(f'{META_KEY}.latency is not a dict')
    for key in ('dense_ms', 'predicted_ms', 'measured_ms'):
        value = latency.get(key)
        is_time = type(value) in (int, float) and 0 < value < math.inf
        # Where the device was not at hand nothing was measured.
        if not is_time and not (key == 'measured_ms' and value is None):
            raise StructureError(f'{META_KEY}.latency.{key} is {value!r}, no time in milliseconds')
    for key in ('table', 'device'):
        if not isinstance(latency.get(key), str):
            raise StructureError(f'{META_KEY}.latency.{key} is {latency.get(key)!r}, no text')


def _check_start(structure: Mapping) -> None:
    """Check that ``start`` is of a cut model, and that ``keep`` is a part of what it kept."""
    start = structure['start']
    phase = start.get('phase') if isinstance(start, Mapping) else None
    if is_cut(structure) or phase != PHASES[-1]:
        raise StructureError(
            f'{META_KEY}.start has the phase {phase!r} beside {structure["phase"]!r}; '
            f'only a model that was cut can be at the start, and only until it is cut again'
        )
    check_structure(start)
    for name, axes in start['keep'].items():
        missing = axes.keys() - structure['keep'].get(name, {}).keys()
        if missing:
            raise StructureError(
                f'{META_KEY}.keep[{name!r}] does not say what is kept along axis {min(missing)}, '
                f'which {META_KEY}.start has shortened; take the checkpoint as it was written'
            )
    relative_to(structure['keep'], start['keep'])
