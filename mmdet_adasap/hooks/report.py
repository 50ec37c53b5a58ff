# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The table that says what a cut did."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


def layer_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shape of the weight of every convolution and linear layer by the layer's name."""
    return {
        name: module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    }


def cut_table(model: nn.Module, dense: Mapping[str, torch.Size], structure: Mapping) -> str:
    """Channels of the convolution and linear layers that shrank, parameters and FLOPs.

    Args:
        model (nn.Module): The slim model.
        dense (Mapping[str, torch.Size]): Its :func:`layer_shapes` before the cut.
        structure (Mapping): Its structure.
    """
    rows, whole = [('layer', 'inputs', 'outputs', 'parameters')], 0
    for name, module in model.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear):
            continue
        before, after = dense[name], module.weight.shape
        if before == after:
            whole += 1
            continue
        inputs, outputs = (0, 1) if getattr(module, 'transposed', False) else (1, 0)
        rows.append(
            (
                name,
                _change(before[inputs], after[inputs]),
                _change(before[outputs], after[outputs]),
                _change(before.numel(), after.numel()),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    totals = [
        f'{resource}: {structure["dense"][resource]:,} -> '
        f'{round(structure["dense"][resource] * left):,} ({left:.4f})'
        for resource, left in structure['reached'].items()
    ]
    return '\n'.join(['AdaSAP cut the model', *lines, f'{whole} more layers as before', *totals])


def _change(before: int, after: int) -> str:
    return f'{before:,}' if before == after else f'{before:,} -> {after:,}'
