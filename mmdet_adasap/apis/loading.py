# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from mmengine.runner import load_state_dict
from torch import nn

from ..checkpoints import read_checkpoint
from ..pruning import StructureError
from ..pruning.loading import load_structure, refuse_misfit


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
    """:func:`load_pruned` of what :func:`read_checkpoint` has read."""
    weights = checkpoint.get('state_dict', checkpoint)
    expected = model.state_dict().keys()
    if expected != weights.keys():
        missing, more = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
        what = f'lacks {missing[0]} of the model' if missing else f'has {more[0]} beside the model'
        raise StructureError(
            f'{filename} {what} ({len(missing)} tensors missing, {len(more)} too many); use the '
            f'config that the checkpoint was trained with'
        )
    structure = load_structure(checkpoint, model, [])
    if structure is None:
        refuse_misfit(model, weights)
    load_state_dict(model, weights, strict=True)
    meta = (checkpoint.get('meta') or {}).get('dataset_meta')
    if meta:
        model.dataset_meta = {key.lower(): value for key, value in meta.items()}
    return structure
