# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from mmengine.runner import CheckpointLoader, load_state_dict
from torch import nn

from ..pruning.loading import load_structure


def load_pruned(model: nn.Module, filename: str, map_location: str = 'cpu') -> dict | None:
    """Load a pruned checkpoint where no hooks run: into what init_detector or a registry builds.

    A dense checkpoint is loaded as it is.

    Args:
        model (nn.Module): The model of the unpruned config, reshaped in place.
        filename (str): The checkpoint, as mmengine takes it.
        map_location (str): Where tensors are loaded to. Defaults to 'cpu'.

    Returns:
        dict, optional: The structure of the model; None if the checkpoint is a dense one.

    Raises:
        StructureError: If the checkpoint does not fit; nothing is changed then.

    Examples:
        >>> model = init_detector(config, None, device='cpu')
        >>> load_pruned(model, 'work_dirs/adasap_ssd300_voc0712/epoch_24.pth')
    """
    checkpoint = CheckpointLoader.load_checkpoint(filename, map_location)
    structure = load_structure(checkpoint, model, [])
    load_state_dict(model, checkpoint.get('state_dict', checkpoint), strict=True)
    return structure
