# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Build a pruned model: the dense one of a config, cut to the shape in ``structure.json``.

A plain config cannot describe it, since the layers of a stage may have lost different numbers of
channels. Exported folders hold a copy of this file, and their config imports it. It needs mmengine
and torch alone, and one copy serves all exported models of a process.
"""

import json
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module(name='SlimModel')
def build_slim_model(dense: str, structure: str, **arguments) -> nn.Module:
    """Build the model that the weights of a pruned model fit, with random weights.

    Args:
        dense (str): Type of the dense model.
        structure (str): File that says which indices of its tensors are kept. It is JSON:
            ``keep`` has them by tensor and axis, ``attrs`` the channel counts by module.
        **arguments: Those of the dense model.

    Returns:
        nn.Module: A model of the dense type.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the model is not the one that was pruned.
    """
    if not Path(structure).is_file():
        raise FileNotFoundError(
            f'model.structure={structure!r} is missing; use the config.py of the exported folder, '
            f'with structure.json beside it, instead of a copy'
        )
    shape = json.loads(Path(structure).read_text())
    model = MODELS.build(ConfigDict(type=dense, **arguments))
    _cut(model, shape['keep'], shape['attrs'])
    _let_ssd_predict(model)
    model._register_load_state_dict_pre_hook(_refuse_other_weights, with_module=True)
    return model


def _refuse_other_weights(model: nn.Module, weights: dict, prefix: str, *_: object) -> None:
    """Raise ValueError if most weights have other shapes than the model.

    mmengine would log them and go on with random weights. A few may differ: those of a head that
    is to learn other classes.
    """
    shapes = {prefix + name: tensor.shape for name, tensor in model.state_dict().items()}
    common = shapes.keys() & weights.keys()
    misfits = sorted(name for name in common if weights[name].shape != shapes[name])
    if 2 * len(misfits) > len(common):
        raise ValueError(
            f'{len(misfits)} of {len(common)} tensors have other shapes than the slim model, '
            f'{misfits[0]} for one; load the model.pth beside its config.py, or what was trained '
            f'from it'
        )


@torch.no_grad()
def _cut(model: nn.Module, keep: dict, attrs: dict) -> None:
    """Slice tensors to the kept indices, and set the channel counts of modules."""
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    modules = dict(model.named_modules())
    for name, axes in keep.items():
        tensor = tensors.get(name)
        for axis, index in axes.items():
            axis = int(axis)  # JSON has made a string of it
            if tensor is None or axis >= tensor.dim() or index[-1] >= tensor.shape[axis]:
                raise ValueError(
                    f'model: {name} is not what it was when the model was pruned; leave the '
                    f'layers in the exported config as they are'
                )
            kept = torch.tensor(index, device=tensor.device)
            tensor.data = tensor.data.index_select(axis, kept)
    for name, counts in attrs.items():
        for attribute, count in counts.items():
            setattr(modules[name], attribute, count)


def _let_ssd_predict(model: nn.Module) -> None:
    """Set ``loss_cls`` of SSDHead, which ``predict`` reads since mmdet 3.2 and it does not set."""
    for module in model.modules():
        is_ssd = any(cls.__name__ == 'SSDHead' for cls in type(module).__mro__)
        if is_ssd and not hasattr(module, 'loss_cls'):
            module.loss_cls = None
