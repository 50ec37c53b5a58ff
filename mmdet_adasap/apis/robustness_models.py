# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""From configs and checkpoints to models under test."""

from typing import NamedTuple

from mmengine.config import Config

from ..evaluation.engine import Subject
from ..evaluation.protocol import digest
from ..evaluation.scoring import build_scorer
from ..evaluation.shared_set import SharedSet
from .building import build_dense, read_config
from .loading import load_checkpoint_dict, read_checkpoint

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
    shared: SharedSet,
    device: str,
    metric: str | None,
    scale: float | None,
) -> Subject:
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
    scorer = build_scorer(config.test_evaluator, shared.metainfo, metric, scale)
    scorer.check_images(len(shared.images))
    fp16 = bool((config.get('test_cfg') or {}).get('fp16', False))
    return Subject(source.name, model.to(device).eval(), scorer, view, fp16)


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
