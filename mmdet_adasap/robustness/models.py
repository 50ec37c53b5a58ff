# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models under test: from configs and checkpoints, with what they cost."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import nn

from ..checkpoint import load_checkpoint_dict, read_checkpoint
from ..errors import ModelFailedError
from ..integration import build_dense, read_config, unwrapped
from ..models import count_parameters, measure_flops, measure_latencies, preprocess_batch
from .datasets import CLEAN, Unreadable, image_name
from .engine import EvaluatedModel, loading_error
from .evaluation_settings import EvaluationSettings
from .metrics import build_adapter, select_part
from .protocol import digest
from .test_set import TestSet

CONFIG_KEYS = ('model', 'data_preprocessor', 'test_evaluator', 'test_cfg')
"""Keys of a config, beside test_dataloader, that figures depend on."""
LOADING_KEYS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'timeout')
"""Keys of a test_dataloader that change no figure."""
ROUNDS = 10
"""Timed runs that latency is the median of: chosen by us, seconds for a detector on a CPU."""


class ModelSource(NamedTuple):
    """A model to test: what to call it, its config and its checkpoint, dense or pruned."""

    name: str
    config: str
    checkpoint: str


def read_test_config(
    name: str, options: dict | None, metric: str | None = None
) -> tuple[Config, str | None]:
    """Read a config, override some of its settings, and check that it can test.

    Args:
        name (str): The config.
        options (dict, optional): Settings to override.
        metric (str, optional): Name of P. Where the config has a metric for each of several
            datasets, it says which of them is tested.

    Returns:
        tuple[Config, str | None]: The config of one test set, and the name of P among its metrics.

    Raises:
        ValueError: If it cannot be read, has no test_dataloader or test_evaluator, or ``metric``
            names none of several datasets.
    """
    config = read_config(name)
    if options:
        config.merge_from_dict(options)
    for key in ('test_dataloader', 'test_evaluator'):
        if not config.get(key):
            raise ValueError(f'{name}: {key} is missing; give the config that test.py takes')
    dataloader, evaluator = config.test_dataloader, config.test_evaluator
    part = select_part(dataloader, evaluator, metric)
    if part.evaluator is not evaluator:
        config.test_dataloader, config.test_evaluator = part.dataloader, part.evaluator
    return config, part.metric


def load_model(
    source: ModelSource,
    config: Config,
    view: int,
    test_set: TestSet,
    settings: EvaluationSettings,
    metric: str | None = None,
) -> EvaluatedModel:
    """Load a model, dense or pruned, and build the adapter of its metric.

    Args:
        source (ModelSource): Its name and files.
        config (Config): Its config.
        view (int): Number of the pipeline that prepares its images.
        test_set (TestSet): The images.
        settings (EvaluationSettings): Device and scale.
        metric (str, optional): Name of P among the metrics of the config.

    Returns:
        EvaluatedModel: In eval mode, on its device.

    Raises:
        ValueError: If the checkpoint is of another model or of other classes.
    """
    checkpoint = read_checkpoint(source.checkpoint)
    model = build_dense(config)
    try:
        load_checkpoint_dict(model, checkpoint, source.checkpoint)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'{source.name}: {error}') from error
    _check_classes(source, getattr(model, 'dataset_meta', None) or {}, test_set.metainfo)
    adapter = build_adapter(config.test_evaluator, test_set.metainfo, metric, settings.scale)
    adapter.check_images(len(test_set.images))
    adapter.check_annotations(test_set.infos)
    # Where mmengine's TestLoop has it.
    fp16 = bool((config.get('test_cfg') or {}).get('fp16', False))
    model = model.to(settings.device).eval()
    return EvaluatedModel(source.name, model, adapter, view, fp16)


def _check_classes(source: ModelSource, trained: dict, tested: dict) -> None:
    """Raise ValueError if a model was trained for other classes than the dataset has."""
    theirs, ours = (tuple(meta.get('classes') or ()) for meta in (trained, tested))
    if theirs and ours and theirs != ours:
        pairs = zip(theirs, ours, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), None)
        difference = f'{first[0]!r} is {first[1]!r} there' if first else 'some are missing'
        raise ValueError(
            f'{source.name}: {source.checkpoint} was trained for {len(theirs)} classes and the '
            f'test set has {len(ours)} ({difference}); use the config that it was trained with'
        )


def digest_of_config(config: Config) -> str:
    """Return the sha256 of what a model's figures depend on; images have their own digest."""
    loader = {k: v for k, v in config.test_dataloader.to_dict().items() if k not in LOADING_KEYS}
    # The same images may lie in another folder on another machine.
    loader['dataset'] = {k: v for k, v in loader['dataset'].items() if k != 'data_root'}
    return digest({**{key: config.get(key) for key in CONFIG_KEYS}, 'test_dataloader': loader})


def measure_costs(models: Sequence[EvaluatedModel], test_set: TestSet) -> dict[str, dict]:
    """Measure models on the first clean image that can be read.

    Models whose images are prepared in the same way take turns, so that a slower phase of the
    machine meets all of them.

    Args:
        models (Sequence[EvaluatedModel]): The models.
        test_set (TestSet): The images.

    Returns:
        dict[str, dict]: For each model 'params', 'flops' (multiply-accumulates as mmengine
        counts them; None where it cannot), 'image' (height, width of what the network sees),
        'latency_ms' (median over 10 runs of preprocessing, network and boxes, batch 1),
        'latency_low_ms' and 'latency_high_ms' (quartiles of these runs) and 'threads'. Empty if
        no image can be read.

    Raises:
        LoadingFailedError: If the dataset fails otherwise than on an unreadable image.
        ModelFailedError: If a model fails on the image.
    """
    for position in range(len(test_set.images)):
        try:
            _, views = test_set.images[CLEAN, position]
        except Exception as error:
            raise loading_error(CLEAN, error) from error
        if not isinstance(views, Unreadable):
            break
    else:
        return {}
    costs = {}
    for view in sorted({evaluated.view for evaluated in models}):
        networks = {each.name: each.model for each in models if each.view == view}
        batch = test_set.collate([views[view]])
        for name, model in networks.items():
            _test_once(name, model, batch, image_name(test_set.images.info(position)))
        times = measure_latencies(networks, batch, ROUNDS)
        for name, model in networks.items():
            # FLOPs are of the network, on what the preprocessor made of the image.
            ready = preprocess_batch(model, batch)
            try:
                flops = measure_flops(unwrapped(model), ready['inputs'], ready['data_samples'])
            except Exception:  # mmengine counts the operations that it knows
                flops = None
            costs[name] = {
                'params': count_parameters(model),
                'flops': flops,
                'image': list(ready['inputs'].shape[-2:]),
                'latency_ms': times['whole_ms'][name],
                'latency_low_ms': times['whole_quartiles_ms'][name][0],
                'latency_high_ms': times['whole_quartiles_ms'][name][1],
                'threads': torch.get_num_threads(),
            }
    return {evaluated.name: costs[evaluated.name] for evaluated in models}


@torch.no_grad()
def _test_once(name: str, model: nn.Module, batch: dict, image: str) -> None:
    """Test a model on one batch, so that its first error names it."""
    try:
        # A copy, since a model may write into its samples.
        model.test_step(copy.deepcopy(batch))
    except Exception as error:
        raise ModelFailedError(
            f'model {name} fails on clean images, the first one ({image}): '
            f'{type(error).__name__}: {error}'
        ) from error
