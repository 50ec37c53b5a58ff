# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Give a dense model the shape of a checkpoint, before the weights are loaded."""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from mmengine.runner import load_state_dict
from torch import nn
from torch.optim import Optimizer

from ..errors import StructureError
from ..integration import unwrapped
from ..pruning import (
    META_KEY,
    Keep,
    check_dense,
    check_fits,
    check_structure,
    cut,
    is_cut,
    last_cut,
    named_tensors,
    tag_model,
    tagged_structure,
)
from .safe_load import meta_of, read_checkpoint

REMEDY = (
    'use the config that it was pruned with; in Python call '
    'mmdet_adasap.apis.init_pruned_detector(config, checkpoint) instead of init_detector, '
    'init_pruned_classifier instead of get_model, or load_pruned(model, checkpoint); for '
    'DetInferencer export it with tools/export.py'
)


def structure_of(checkpoint: object) -> Mapping | None:
    """Return the structure that a checkpoint holds, checked; None if it holds none.

    Raises:
        StructureError: If it is malformed, or its weights are no dict.
    """
    structure = meta_of(checkpoint).get(META_KEY)
    if structure is None:
        return None
    check_structure(structure)
    if not isinstance(checkpoint.get('state_dict', {}), Mapping):
        raise StructureError(
            'the state_dict of the pruned checkpoint is no dict; take one as train.py writes it'
        )
    return structure


def restore_structure(
    checkpoint: dict,
    model: nn.Module,
    copies: list[nn.Module],
    optimizers: Iterable[Optimizer] = (),
    starts_training: bool = False,
) -> dict | None:
    """Give a model the shape that a checkpoint has, before its weights are loaded.

    Args:
        checkpoint (dict): As loaded from a file.
        model (nn.Module): The model of the unpruned config.
        copies (list[nn.Module]): Moving averages of it, reshaped likewise.
        optimizers (Iterable[Optimizer]): Those whose state is to follow, if they have one already.
        starts_training (bool): Whether a training starts from it. The head may then be for other
            classes than in the file, and its weights stay as they are. Defaults to False.

    Returns:
        dict, optional: The structure, with the numbers of parameters that this model has; None
        if the checkpoint is not one of a pruned model.

    Raises:
        StructureError: If it is malformed, or does not fit the model or the weights.
    """
    structure = structure_of(checkpoint)
    if structure is None:
        return None
    weights, shape = checkpoint.get('state_dict', {}), last_cut(structure)
    # This model has been cut already, as where a training is tested at its end.
    if shape is not None and next(_misfits(model, weights, {}), None) is None:
        tag_model(model, shape)
        return structure
    if starts_training and shape is None:
        return structure  # its weights are dense ones, and mmengine's rules for those are enough
    pruned = {}
    if starts_training and is_cut(structure):
        found = with_other_head(structure, model, weights)
        if found is not structure:
            structure, shape, pruned = found, found, found['keep']
    # A model that is pruned again has two: that of its first cut, and that of its masks.
    for each in (structure,) if shape in (None, structure) else (structure, shape):
        check_dense(model, each)
        for module in (model, *copies):
            check_fits(module, each['keep'], each['attrs'])
    keep, attrs = (shape['keep'], shape['attrs']) if shape is not None else ({}, {})
    check_weights_fit(model, weights, keep, pruned or None)  # before anything is changed
    cut(model, keep, attrs, optimizers)
    for module in copies:
        cut(module, keep, attrs)
    if shape is not None:
        tag_model(model, shape)
    return structure


def with_other_head(structure: Mapping, model: nn.Module, weights: Mapping) -> Mapping:
    """Return a structure for a model that differs in its classes alone from the one pruned.

    Axes of classes are never pruned, so that all a structure says of them is how many parameters
    the model has. What was reached of the FLOPs is taken to be the same.

    Args:
        structure (Mapping): The structure of a model that was cut.
        model (nn.Module): The dense model.
        weights (Mapping): The slim weights.

    Returns:
        Mapping: With other numbers of parameters; the same object if the models differ in none,
        or otherwise than along axes that the structure leaves whole.
    """
    theirs = ours = left = 0
    for name, parameter in model.named_parameters():
        found, kept = weights.get(name), structure['keep'].get(name, {})
        if not isinstance(found, torch.Tensor) or found.dim() != parameter.dim():
            return structure
        pairs = list(enumerate(zip(parameter.shape, found.shape, strict=True)))
        theirs += math.prod(own if axis in kept else other for axis, (own, other) in pairs)
        left += math.prod(len(kept.get(axis, range(own))) for axis, (own, _) in pairs)
        ours += parameter.numel()
    # A body of another width gives another number, too.
    if ours == theirs or theirs != structure['dense'].get('params'):
        return structure
    return {
        **structure,
        'dense': {**structure['dense'], 'params': ours},
        'reached': {**structure['reached'], 'params': left / ours},
    }


def check_slim_weights(model: nn.Module, checkpoint: object) -> None:
    """Raise StructureError if a checkpoint is of a slim model, and this one has another shape.

    Args:
        model (nn.Module): The model, as the weights are to be loaded into it.
        checkpoint (object): As loaded from a file.

    Raises:
        StructureError: Naming the first tensor that does not fit.
    """
    structure = structure_of(checkpoint)
    shape = structure and last_cut(structure)
    if shape is None:
        return
    taken = tagged_structure(model)
    # With restore_structure's leave the head is for other classes, if a training starts.
    has_other_head = taken and taken['keep'] == shape['keep'] and taken['dense'] != shape['dense']
    pruned = shape['keep'] if has_other_head else None
    check_weights_fit(model, checkpoint.get('state_dict', {}), {}, pruned)


def check_weights_fit(
    model: nn.Module, weights: Mapping, keep: Keep | None = None, pruned: Keep | None = None
) -> None:
    """Raise StructureError if weights do not fit, which mmengine would skip with a log line.

    Args:
        model (nn.Module): The model.
        weights (Mapping): The state dict of the checkpoint.
        keep (dict, optional): What will be kept of the model's tensors before they are loaded.
        pruned (dict, optional): If given, tensors have to fit along its axes alone.

    Raises:
        StructureError: Naming the first tensor that is missing, or whose shape is not the model's.
    """
    for name, shape, expected in _misfits(model, weights, keep or {}):
        if shape is None:
            raise StructureError(
                f'{name} of the model is missing in the pruned checkpoint; {REMEDY}'
            )
        fits = len(shape) == len(expected) and pruned is not None
        if fits and all(shape[axis] == expected[axis] for axis in pruned.get(name, ())):
            continue
        raise StructureError(
            f'{name} has the shape {shape} in the pruned checkpoint and {expected} in the model; '
            f'{REMEDY}'
        )


def _misfits(model: nn.Module, weights: Mapping, keep: Keep) -> Iterator[tuple]:
    """Yield the tensors that will not fit: their names, and their shapes in file and model."""
    # A tensor that several modules share has several names, and the structure knows the first.
    first_name = {id(tensor): name for name, tensor in named_tensors(model).items()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        kept = keep.get(first_name.get(id(tensor), name), {})
        shape = tuple(len(kept.get(axis, range(n))) for axis, n in enumerate(tensor.shape))
        found = weights.get(name)
        if not isinstance(found, torch.Tensor):
            yield name, None, shape
        elif tuple(found.shape) != shape:
            yield name, tuple(found.shape), shape


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
    outer, model = model, unwrapped(model)
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
    meta = meta_of(checkpoint).get('dataset_meta')
    if meta:
        outer.dataset_meta = {key.lower(): value for key, value in meta.items()}
    return structure
