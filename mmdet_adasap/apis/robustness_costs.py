# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a model under test costs: parameters, FLOPs and milliseconds of one image."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from ..evaluation.engine import ModelFailed, Subject, loading_failed
from ..evaluation.shared_set import SharedSet
from .export_report import flops_of, latencies, parameters_of, preprocessed

ROUNDS = 10


def measure_costs(subjects: Sequence[Subject], shared: SharedSet) -> dict[str, dict]:
    """Measure models on the first clean image that can be read; those that are prepared alike
    take turns.

    Returns:
        dict[str, dict]: For each model 'params', 'flops' (multiply-accumulates as mmengine
        counts them; None where it cannot), 'image' (height, width of what the network sees),
        'latency_ms' (median over 10 runs of preprocessing, network and boxes, batch 1) and
        'threads'.
    """
    from ..datasets.shared_images import CLEAN, Unreadable

    for position in range(len(shared.images)):
        try:
            _, views = shared.images[CLEAN, position]
        except Exception as error:
            raise loading_failed(CLEAN, error) from error
        if not isinstance(views, Unreadable):
            break
    else:
        return {}
    costs = {}
    for view in sorted({subject.view for subject in subjects}):
        models = {s.name: s.model for s in subjects if s.view == view}
        batch = shared.collate([views[view]])
        for name, model in models.items():
            _try(name, model, batch)
        times = latencies(models, batch, ROUNDS)['whole_ms']
        for name, model in models.items():
            ready = preprocessed(model, batch)
            try:
                flops = flops_of(model, ready['inputs'], ready['data_samples'])
            except Exception:  # it knows some operations only
                flops = None
            costs[name] = {
                'params': parameters_of(model),
                'flops': flops,
                'image': list(ready['inputs'].shape[-2:]),
                'latency_ms': times[name],
                'threads': torch.get_num_threads(),
            }
    return {subject.name: costs[subject.name] for subject in subjects}


@torch.no_grad()
def _try(name: str, model: nn.Module, batch: dict) -> None:
    """Have an error of a model name it."""
    try:
        model.test_step(copy.deepcopy(batch))
    except Exception as error:
        raise ModelFailed(
            f'model {name} fails on clean images, the first one: {type(error).__name__}: {error}'
        ) from error
