# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""From configs and checkpoints to models under test."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import nn

from ..checkpoint.restore import load_checkpoint_dict, read_checkpoint
from ..errors import ModelFailedError
from ..integration.configs import build_dense, read_config
from ..models import count_parameters, measure_flops, measure_latencies, preprocess_batch
from .engine import EvaluatedModel, loading_failed
from .metrics import build_adapter
from .protocol import digest
from .test_set import TestSet

CONFIG_KEYS = ('model', 'data_preprocessor', 'test_evaluator', 'test_cfg')
LOADING_KEYS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'timeout')
"""Of a test_dataloader what changes no figure."""


class ModelSource(NamedTuple):
    """A model to test: what to call it, its config and its checkpoint, dense or pruned."""

    name: str
    config: str
    checkpoint: str


def read_test_config(name: str, options: dict | None) -> Config:
    """Read a config, override some of its settings, and see that it can test."""
    config = read_config(name)
    if options:
        config.merge_from_dict(options)
    for key in ('test_dataloader', 'test_evaluator'):
        if not config.get(key):
            raise ValueError(f'{name}: {key} is missing; give the config that test.py takes')
    return config


def load_subject(
    source: ModelSource,
    config: Config,
    view: int,
    shared: TestSet,
    device: str,
    metric: str | None,
    scale: float | None,
) -> EvaluatedModel:
    """Load a model, dense or pruned, and what scores it.

    Raises:
        ValueError: If the checkpoint is of another model or of other classes.
    """
    found = read_checkpoint(source.checkpoint)
    model = build_dense(config)
    try:
        load_checkpoint_dict(model, found, source.checkpoint)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'{source.name}: {error}') from error
    _check_classes(source, getattr(model, 'dataset_meta', None) or {}, shared.metainfo)
    adapter = build_adapter(config.test_evaluator, shared.metainfo, metric, scale)
    adapter.check_images(len(shared.images))
    fp16 = bool((config.get('test_cfg') or {}).get('fp16', False))
    return EvaluatedModel(source.name, model.to(device).eval(), adapter, view, fp16)


def _check_classes(source: ModelSource, trained: dict, tested: dict) -> None:
    """Refuse a model that was trained for other classes than the dataset has."""
    theirs, ours = (tuple(meta.get('classes') or ()) for meta in (trained, tested))
    if theirs and ours and theirs != ours:
        apart = next(
            (pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]), None
        )
        what = f'{apart[0]!r} is {apart[1]!r} there' if apart else 'some are missing'
        raise ValueError(
            f'{source.name}: {source.checkpoint} was trained for {len(theirs)} classes and the '
            f'test set has {len(ours)} ({what}); use the config that it was trained with'
        )


def digest_of_config(config: Config) -> str:
    """Of what its figures depend on; the images have a digest of their own."""
    loader = {k: v for k, v in config.test_dataloader.to_dict().items() if k not in LOADING_KEYS}
    loader['dataset'] = {k: v for k, v in loader['dataset'].items() if k != 'data_root'}
    return digest({**{key: config.get(key) for key in CONFIG_KEYS}, 'test_dataloader': loader})


ROUNDS = 10


def measure_costs(subjects: Sequence[EvaluatedModel], shared: TestSet) -> dict[str, dict]:
    """Measure models on the first clean image that can be read; those that are prepared alike
    take turns.

    Returns:
        dict[str, dict]: For each model 'params', 'flops' (multiply-accumulates as mmengine
        counts them; None where it cannot), 'image' (height, width of what the network sees),
        'latency_ms' (median over 10 runs of preprocessing, network and boxes, batch 1) and
        'threads'.
    """
    from .datasets.multi_view import CLEAN, Unreadable

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
        times = measure_latencies(models, batch, ROUNDS)['whole_ms']
        for name, model in models.items():
            ready = preprocess_batch(model, batch)
            try:
                flops = measure_flops(model, ready['inputs'], ready['data_samples'])
            except Exception:  # it knows some operations only
                flops = None
            costs[name] = {
                'params': count_parameters(model),
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
        raise ModelFailedError(
            f'model {name} fails on clean images, the first one: {type(error).__name__}: {error}'
        ) from error
