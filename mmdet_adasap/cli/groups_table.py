# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The groups of channels of a model: as plain data, and as a table to read."""

from __future__ import annotations

import re
from collections import defaultdict

import torch

from ..errors import listed


def describe(model: torch.nn.Module, channels) -> dict:
    """Return groups, costs and what protects the other channels, as plain data."""
    tensors = dict(model.named_parameters())

    def layers(group, output: bool) -> list[str]:
        found = [
            m.name
            for m in group.members
            if m.is_output == output and m.name in tensors and tensors[m.name].dim() > 1
        ]
        return list(dict.fromkeys(name.rpartition('.')[0] for name in found))

    sizes = channels.group_sizes
    groups = []
    for group, unit in zip(channels.groups, channels.channels_per_unit.tolist(), strict=True):
        one_less = sizes.copy()
        one_less[group.index] -= 1
        groups.append(
            {
                'name': group.name,
                'channels': int(group.size) * unit,
                'go_by': unit,  # channels that a norm or convolution in groups ties together
                'made_by': layers(group, True),
                'read_by': layers(group, False),
                'params_per_channel': (channels.params(sizes) - channels.params(one_less)) / unit,
                'flops_per_channel': (channels.flops(sizes) - channels.flops(one_less)) / unit,
            }
        )
    frozen = defaultdict(list)
    in_trial = set(channels.excluded.values())
    for reason, axes in channels.frozen.items():
        if reason in in_trial:
            continue
        frozen[reason] += sorted({dim.name for dim in axes})
    return {
        'params': channels.params(sizes),
        'flops': channels.flops(sizes),
        'groups': groups,
        'left_whole': dict(frozen),
        'wrong_in_trial': channels.excluded,
        'not_met': channels.unused_parameters,
    }


def table(found: dict, slim: list[int] | None) -> str:
    rows = [('group', 'channels', 'params each', 'made by', 'read by')]
    for i, group in enumerate(found['groups']):
        size = str(group['channels']) + (f' by {group["go_by"]}' if group['go_by'] > 1 else '')
        rows.append(
            (
                str(i),
                size if slim is None else f'{size} -> {slim[i]}',
                f'{group["params_per_channel"]:,.0f}',
                listed(group['made_by'], 1),
                listed(group['read_by'], 1),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
        lines.append('  '.join([*numbers, row[3].ljust(widths[3]), row[4]]).rstrip())
    lines.append('')
    height, width = found['image_size']
    flops = f'{found["flops"] / 1e9:.3f} GFLOPs (MACs) for {height}x{width} pixels'
    lines.append(f'{found["params"]:,} parameters, {flops} ({found["image_size_from"]})')
    if found['left_whole']:
        lines.append('left whole:')
    for reason, names in _merge_reasons(found['left_whole']).items():
        lines.append(f'  {listed(names, 2)}: {reason}')
    for name, reason in found['wrong_in_trial'].items():
        lines.append(f'  {name or "the model"}: {reason}')
    if found['not_met']:
        lines.append(f'  {listed(found["not_met"], 2)}: took no part in the run')
    return '\n'.join(lines)


def _merge_reasons(reasons: dict[str, list[str]]) -> dict[str, list[str]]:
    """Merge reasons that are the same but for the numbers of layers."""
    kinds = defaultdict(list)
    for reason in reasons:
        kinds[re.sub(r'(?<=\.)\d+(?=\.|$)', '*', reason)].append(reason)
    together = {}
    for kind, same in kinds.items():
        shown = same[0] if len(same) == 1 else f'{kind} ({len(same)} of them)'
        together[shown] = list(dict.fromkeys(name for each in same for name in reasons[each]))
    return together
