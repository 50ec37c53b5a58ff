# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Give a dense model the shape of a checkpoint, before the weights are loaded."""

from collections.abc import Iterable, Mapping

import torch
from mmengine.runner import load_state_dict
from torch import nn
from torch.optim import Optimizer

from ..errors import StructureError
from ..pruning import (
    META_KEY,
    Keep,
    check_dense,
    check_fits,
    check_structure,
    cut,
    last_cut,
    named_tensors,
    tag_model,
)
from .safe_load import read_checkpoint

REMEDY = (
    'use the config that it was pruned with, AdaSAPHook among its default_hooks; in Python call '
    'mmdet_adasap.apis.init_pruned_detector(config, checkpoint) instead of init_detector, '
    'init_pruned_classifier instead of get_model, or load_pruned(model, checkpoint); for '
    'DetInferencer export it with tools/export.py'
)


def read_parts(checkpoint: Mapping) -> tuple[Mapping, Mapping]:
    """Return the meta of a checkpoint, which says what its weights are, and the weights.

    Raises:
        StructureError: If either is there and no dict.
    """
    meta, weights = checkpoint.get('meta') or {}, checkpoint.get('state_dict', {})
    if not isinstance(meta, Mapping) or not isinstance(weights, Mapping):
        raise StructureError(
            'the checkpoint has a meta or a state_dict that is no dict; take one as train.py '
            'writes it'
        )
    return meta, weights


def restore_structure(
    checkpoint: dict,
    model: nn.Module,
    copies: list[nn.Module],
    optimizers: Iterable[Optimizer] = (),
) -> dict | None:
    """Give a model the shape that a checkpoint has, before its weights are loaded.

    Args:
        checkpoint (dict): As loaded from a file.
        model (nn.Module): The model of the unpruned config.
        copies (list[nn.Module]): Moving averages of it, reshaped likewise.
        optimizers (Iterable[Optimizer]): Those whose state is to follow, if they have one already.

    Returns:
        dict, optional: The structure; None if the checkpoint is not one of a pruned model.

    Raises:
        StructureError: If it is malformed, or does not fit the model or the weights.
    """
    meta, weights = read_parts(checkpoint)
    structure = meta.get(META_KEY)
    if structure is None:
        return None
    check_structure(structure)
    shape = last_cut(structure)
    # This model has been cut already, as where a training is tested at its end.
    if shape is not None and _first_misfit(model, weights, {}) is None:
        tag_model(model, shape)
        return structure
    # A model that is pruned again has two: that of its first cut, and that of its masks.
    for each in (structure,) if shape in (None, structure) else (structure, shape):
        check_dense(model, each)
        for module in (model, *copies):
            check_fits(module, each['keep'], each['attrs'])
    keep, attrs = (shape['keep'], shape['attrs']) if shape is not None else ({}, {})
    check_weights_fit(model, weights, keep)  # before anything is changed
    cut(model, keep, attrs, optimizers)
    for module in copies:
        cut(module, keep, attrs)
    if shape is not None:
        tag_model(model, shape)
    return structure


def check_weights_fit(model: nn.Module, weights: dict, keep: Keep | None = None) -> None:
    """Raise StructureError if weights do not fit, which mmengine would skip with a log line.

    Args:
        model (nn.Module): The model.
        weights (dict): The state dict of the checkpoint.
        keep (dict, optional): What will be kept of the model's tensors before they are loaded.

    Raises:
        StructureError: Naming the first tensor that is missing, or whose shape is not the model's.
    """
    found = _first_misfit(model, weights, keep or {})
    if found is None:
        return
    name, shape, expected = found
    if shape is None:
        raise StructureError(f'{name} of the model is missing in the pruned checkpoint; {REMEDY}')
    raise StructureError(
        f'{name} has the shape {shape} in the pruned checkpoint and {expected} in the model; '
        f'{REMEDY}'
    )


def _first_misfit(model: nn.Module, weights: dict, keep: Keep) -> tuple | None:
    """Return the first tensor that will not fit: its name, and its shapes in file and model."""
    # A tensor that several modules share has several names, and the structure knows the first.
    first_name = {id(tensor): name for name, tensor in named_tensors(model).items()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        kept = keep.get(first_name.get(id(tensor), name), {})
        shape = tuple(len(kept.get(axis, range(n))) for axis, n in enumerate(tensor.shape))
        found = weights.get(name)
        if not isinstance(found, torch.Tensor):
            return name, None, shape
        if tuple(found.shape) != shape:
            return name, tuple(found.shape), shape
    return None


def load_pruned(model: nn.Module, filename: str, map_location: str = 'cpu') -> dict | None:
    """Load a pruned checkpoint where no hooks run: into what init_detector or a registry builds.

    A dense checkpoint is loaded as it is. The names of the classes that the checkpoint was
    trained for become ``model.dataset_meta``.

    Args:
        model (nn.Module): The model of the unpruned config, reshaped in place.
        filename (str): The checkpoint, a file.
        map_location (str): Where tensors are loaded to. Defaults to 'cpu'.

    Returns:
        dict, optional: The structure of the model; None if the checkpoint is a dense one.

    Raises:
        StructureError: If the checkpoint does not fit; nothing is changed then.
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds more than data. Nothing of it is run.

    Examples:
        >>> model = init_detector(config, None, device='cpu')
        >>> load_pruned(model, 'work_dirs/adasap_ssd300_voc0712/epoch_24.pth')
    """
    return load_checkpoint_dict(model, read_checkpoint(filename, map_location), filename)


def load_checkpoint_dict(model: nn.Module, checkpoint: dict, filename: str) -> dict | None:
    """Load what :func:`read_checkpoint` has read, as :func:`load_pruned` does with a file.

    Args:
        model (nn.Module): The model of the unpruned config, reshaped in place.
        checkpoint (dict): The checkpoint.
        filename (str): Where it is from, for messages.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    expected = model.state_dict().keys()
    if expected != weights.keys():
        missing, more = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
        fault = (
            f'lacks {missing[0]} of the model' if missing else f'has {more[0]} beside the model'
        )
        raise StructureError(
            f'{filename} {fault} ({len(missing)} tensors missing, {len(more)} too many); use the '
            f'config that the checkpoint was trained with'
        )
    structure = restore_structure(checkpoint, model, [])
    if structure is None:
        check_weights_fit(model, weights)
    load_state_dict(model, weights, strict=True)
    meta = (checkpoint.get('meta') or {}).get('dataset_meta')
    if meta:
        model.dataset_meta = {key.lower(): value for key, value in meta.items()}
    return structure
