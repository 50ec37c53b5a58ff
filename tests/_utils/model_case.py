# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""One model through all that pruning does, in a process of its own: prints a line of JSON.

python model_case.py CONFIG SIZE FOLDER           prune, train a step, save to FOLDER
python model_case.py CONFIG SIZE FOLDER --again   rebuild from the checkpoint and compare
"""

import copy
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from _utils.nets import randomise
from mmdet_adasap.apis import apply_structure, build_dense, load_pruned, prune_model
from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.models import raw_forward, synthetic_batch
from mmdet_adasap.pruning import (
    Budget,
    MagnitudeImportance,
    indices_from_masks,
    select_channels,
    trace_channels,
    verify_cut,
)
from mmdet_adasap.pruning.analysis import attribute_counts, find_channels
from mmdet_adasap.pruning.equivalence import difference, raw_outputs
from mmdet_adasap.pruning.model_state import eval_mode
from mmdet_adasap.pruning.selection import minimum_counts
from mmdet_adasap.pruning.structure import META_KEY, named_tensors


def prepared(model: nn.Module, size: int, images: int = 1) -> dict:
    with eval_mode(model):
        return model.data_preprocessor(synthetic_batch(model, size, images), False)


def choices(model: nn.Module, forward, channels) -> list[dict]:
    """Slim against masked for every ratio and rounding."""
    tensors, dense = named_tensors(model), channels.params(channels.group_sizes)
    found = []
    for round_to in (1, 8):
        for ratio in (0.3, 0.5, 0.7):
            whole = [np.ones(g.size, dtype=bool) for g in channels.groups]
            scores = [
                MagnitudeImportance().scores(g, tensors, torch.ones(g.size, dtype=bool)).numpy()
                for g in channels.groups
            ]
            row = {'ratio': ratio, 'round_to': round_to}
            steps = channels.group_steps(round_to)
            row['least'] = least(channels, round_to)
            try:
                kept = select_channels(
                    scores, whole, Budget([(channels.params, ratio * dense)]), steps
                )
            except UnreachableTargetError as error:
                found.append({**row, 'refused': str(error)})
                continue
            keep = indices_from_masks(model, channels.groups, kept)
            apart = verify_cut(model, keep, forward, attribute_counts(model, channels, keep, kept))
            counts = np.array([k.sum() for k in kept])
            found.append(
                {
                    **row,
                    'left': channels.params(counts) / dense,
                    'apart': apart,
                    'step': coarsest(channels, counts, steps) / dense,
                }
            )
    return found


def least(channels, round_to: int = 8) -> float:
    """The fraction of the parameters that cannot go."""
    counts = minimum_counts(channels.group_sizes, channels.group_steps(round_to))
    return channels.params(counts) / channels.params(channels.group_sizes)


def coarsest(channels, counts: np.ndarray, steps: np.ndarray) -> int:
    """Parameters that one more step of the most expensive group would bring."""
    costs = []
    for i in np.flatnonzero(counts < channels.group_sizes):
        more = counts.copy()
        more[i] = min(more[i] + steps[i], channels.group_sizes[i])
        costs.append(channels.params(more) - channels.params(counts))
    return max(costs, default=0)


def prune(config: str, size: int, folder: Path) -> dict:
    torch.manual_seed(0)
    dense = randomise(build_dense(config))
    forward = raw_forward(prepared(dense, size))
    with eval_mode(dense):
        start = time.perf_counter()
        forward(dense)
    ran = time.perf_counter()
    channels = trace_channels(dense, forward)
    traced = time.perf_counter()
    channels = find_channels(dense, forward)
    result = {
        'groups': len(channels.groups),
        'forward': ran - start,
        'trace': traced - ran,
        'whole': channels.excluded,
        'params': channels.params(channels.group_sizes),
        'frozen': {reason: len(axes) for reason, axes in channels.frozen.items()},
        'choices': choices(dense, forward, channels),
    }
    slim = copy.deepcopy(dense)
    target = max(0.5, 1.02 * least(channels))
    structure = prune_model(slim, synthetic_batch(slim, size), dict(params=target))
    apply_structure(dense, structure, mask=True)
    reference = raw_outputs(dense, forward)
    result['pruned'] = difference(raw_outputs(slim, forward), reference)
    two = raw_forward(prepared(dense, size, images=2))
    result['two images'] = difference(raw_outputs(slim, two), raw_outputs(dense, two))
    result['left'], result['target'] = structure['reached']['params'], target
    result['heads'] = sum('num_heads' in counts for counts in structure['attrs'].values())
    torch.save(
        {'meta': {META_KEY: structure}, 'state_dict': slim.state_dict()}, folder / 'slim.pth'
    )
    torch.save(reference, folder / 'reference.pth')

    slim.train()
    optimizer = torch.optim.SGD(slim.parameters(), lr=1e-6, momentum=0.9)
    losses = slim(**prepared(slim, size, images=2), mode='loss')
    loss, _ = slim.parse_losses(losses)
    loss.backward()
    optimizer.step()
    result['loss'] = loss.item()
    return result


def rebuild(config: str, size: int, folder: Path) -> dict:
    """Without a trace, from the unpruned config and the checkpoint."""
    slim = build_dense(config)
    load_pruned(slim, str(folder / 'slim.pth'))
    forward = raw_forward(prepared(slim, size))
    reference = torch.load(folder / 'reference.pth', weights_only=True)
    return {'again': difference(raw_outputs(slim, forward), reference)}


if __name__ == '__main__':
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    work = rebuild if '--again' in sys.argv else prune
    print(json.dumps(work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
