# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The loop of the benchmark: all models see a batch before the next one is loaded."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement
from torch import nn

from ..errors import LoadingFailedError, ModelFailedError
from .datasets import (
    CLEAN,
    Condition,
    MultiViewBatch,
    MultiViewImages,
    Unreadable,
    image_name,
    multi_view_loader,
)
from .metrics import MetricAdapter, Score
from .test_set import TestSet


@dataclass
class EvaluatedModel:
    """A model under test.

    Args:
        name (str): Its name in the results.
        model (nn.Module): In eval mode, on its device.
        adapter (MetricAdapter): Of its config's test_evaluator.
        view (int): Number of the pipeline that prepares its images. Defaults to 0.
        fp16 (bool): As in the config's test_cfg. Defaults to False.
    """

    name: str
    model: nn.Module
    adapter: MetricAdapter
    view: int = 0
    fp16: bool = False


@dataclass
class ConditionResult:
    """The results of all models under one condition.

    Attributes:
        condition (Condition): The condition.
        scores (dict[str, Score]): For each model.
        examples (dict[str, dict[int, dict]]): For each model what it found in the examples.
        unreadable (list[Unreadable]): Images that are left out.
        seconds (dict): Of this process: 'images' (waiting for them), and for each model
            'forward' (``test_step``) and 'scoring'.
    """

    condition: Condition
    scores: dict[str, Score]
    examples: dict[str, dict[int, dict]]
    unreadable: list[Unreadable]
    seconds: dict


def evaluate_conditions(
    models: Sequence[EvaluatedModel],
    test_set: TestSet,
    conditions: Sequence[Condition],
    batch_size: int = 1,
    workers: int = 0,
    weights: np.ndarray | None = None,
    examples: Sequence[int] = (),
    progress: Callable[[int], object] = lambda images: None,
) -> Iterator[ConditionResult | None]:
    """Test models on images under each condition.

    In several processes each takes some of the batches; rank 0 has the results.

    Args:
        models (Sequence[EvaluatedModel]): The models.
        test_set (TestSet): N images.
        conditions (Sequence[Condition]): In this order.
        batch_size (int): Images in a batch. Defaults to 1.
        workers (int): Processes that load images, for each process. Defaults to 0.
        weights (ndarray, optional): How often each image counts in each resample, (R, N).
        examples (Sequence[int]): Numbers of the images whose detections are kept. Defaults to ().
        progress (Callable): Called with the number of images after each batch.

    Yields:
        ConditionResult | None: One for each condition; None in processes other than rank 0.

    Raises:
        ModelFailedError: Naming the model and the condition.
        LoadingFailedError: Naming the condition.
        ValueError: If none of the images can be read.
    """
    rank, processes = get_dist_info()
    images = test_set.images
    iterator = iter(
        multi_view_loader(
            images, conditions, batch_size, test_set.collate, workers, rank, processes
        )
    )
    # The loader gives the batches of all conditions in one stream, so they are counted here.
    batches = len(range(rank * batch_size, len(images), processes * batch_size))
    names = [evaluated.name for evaluated in models]
    for condition in conditions:
        timer, part = _Timer(names), _Part.of(names)
        for _ in range(batches):
            start = time.perf_counter()
            batch = _next_batch(iterator, condition)
            timer.seconds['images'] += time.perf_counter() - start
            part.unreadable.update(batch.unreadable)
            for evaluated in models if batch.positions else ():
                _test_batch(evaluated, batch, part, timer, set(examples), images)
            progress(len(batch.positions) + len(batch.unreadable))
        # Every process meets here once for each condition, also one without any batch.
        whole = _merge(all_gather_object(part), names)
        if len(whole.unreadable) == len(images):
            first = whole.unreadable[min(whole.unreadable)]
            raise ValueError(
                f'none of {len(images)} images can be read: {first.image}: {first.error}'
            )
        yield _score(models, condition, whole, weights, timer) if rank == 0 else None


@dataclass
class _Part:
    """What one process has of a condition, for each model by the number of the image."""

    per_image: dict[str, dict[int, Any]] = field(default_factory=dict)
    examples: dict[str, dict[int, dict]] = field(default_factory=dict)
    samples: dict[str, dict[int, dict]] = field(default_factory=dict)
    unreadable: dict[int, Unreadable] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str]) -> '_Part':
        return cls(*({name: {} for name in names} for _ in range(3)))


class _Timer:
    """Seconds of this process for images, forward passes and scoring."""

    def __init__(self, names: Sequence[str]) -> None:
        self.seconds = {
            'images': 0.0,
            'forward': dict.fromkeys(names, 0.0),
            'scoring': dict.fromkeys(names, 0.0),
        }

    @contextmanager
    def timing(self, what: str, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[what][name] += time.perf_counter() - start


def _next_batch(iterator: Iterator[MultiViewBatch], condition: Condition) -> MultiViewBatch:
    """Return the next batch; an error in a worker reads as if it had been raised here."""
    try:
        return next(iterator)
    except Exception as error:
        _raise_if_worker_died(error)
        raise loading_error(condition, error) from error


def loading_error(condition: Condition, error: Exception) -> LoadingFailedError:
    """Build an error that says in one line what could not be loaded, and why.

    Args:
        condition (Condition): The condition.
        error (Exception): What was raised, also by a worker of PyTorch's DataLoader.

    Returns:
        LoadingFailedError: To be raised.
    """
    text = str(error).strip()
    # PyTorch puts a worker's whole traceback into the message; its last line is the error.
    if 'Original Traceback' in text:
        text = text.splitlines()[-1].removeprefix(f'{LoadingFailedError.__module__}.')
    else:
        text = f'{type(error).__name__}: {text}'
    # That of MultiViewImages says already which image it was, and its own kind says nothing.
    text = text.removeprefix(f'{LoadingFailedError.__name__}: ')
    return LoadingFailedError(f'{condition} cannot be loaded: {text}')


def _raise_if_worker_died(error: Exception) -> None:
    """Raise LoadingFailedError if an error is PyTorch's about a killed worker.

    PyTorch raises it from a signal handler, so it may come out of a model as well.
    """
    if isinstance(error, RuntimeError) and str(error).startswith('DataLoader worker'):
        raise LoadingFailedError(
            f'{error}; perhaps there was too little memory: give fewer --workers, and the same '
            f'command goes on from here'
        ) from error


@torch.no_grad()
def _test_batch(
    evaluated: EvaluatedModel,
    batch: MultiViewBatch,
    part: _Part,
    timer: _Timer,
    examples: Collection[int],
    images: MultiViewImages,
) -> None:
    """Test one model on one batch.

    What it writes into the samples does not reach the next model. test_step begins by moving them
    to the device, and that makes new samples around the same tensors.
    """
    name, view = evaluated.name, batch.views[evaluated.view]
    with timer.timing('forward', name):
        try:
            # As mmengine's TestLoop does, whose test_step runs under autocast with fp16=True.
            with autocast(enabled=evaluated.fp16):
                outputs = evaluated.model.test_step(view)
        except Exception as error:
            _raise_if_worker_died(error)
            raise ModelFailedError(
                f'model {name} fails on {batch.condition}, image number '
                f'{_shown_images(batch.positions, images)}: {type(error).__name__}: {error}'
            ) from error
        _synchronize(evaluated.model)
    with timer.timing('scoring', name):
        samples = [
            output.to_dict() if isinstance(output, BaseDataElement) else output
            for output in outputs
        ]
        results = evaluated.adapter.per_image(samples, view)
        for position, sample, result in zip(batch.positions, samples, results, strict=True):
            part.per_image[name][position] = result
            if position in examples:
                part.examples[name][position] = evaluated.adapter.example(sample)
            # Whole outputs are large; only the check on clean images needs them.
            if batch.condition == CLEAN and evaluated.adapter.has_reference:
                part.samples[name][position] = _to_cpu(sample)


def _shown_images(positions: Sequence[int], images: MultiViewImages) -> str:
    """Return the number of the first image of a batch, and the names of all."""
    # 4: the names of a larger batch would hide the error behind them.
    names = [image_name(images.info(position)) for position in positions[:4]]
    return f'{positions[0]} ({", ".join(names)}{", ..." if positions[4:] else ""})'


def _merge(parts: Sequence[_Part], names: Sequence[str]) -> _Part:
    """Merge the parts of all processes, with images in the order of their numbers."""

    def merged(kind: str, name: str) -> dict:
        every = {i: value for part in parts for i, value in getattr(part, kind)[name].items()}
        return {i: every[i] for i in sorted(every)}

    by_name = [
        {name: merged(kind, name) for name in names}
        for kind in ('per_image', 'examples', 'samples')
    ]
    unreadable = {i: value for part in parts for i, value in part.unreadable.items()}
    return _Part(*by_name, unreadable=unreadable)


def _score(
    models: Sequence[EvaluatedModel],
    condition: Condition,
    whole: _Part,
    weights: np.ndarray | None,
    timer: _Timer,
) -> ConditionResult:
    """Score all models under a condition, and compare clean scores with the metrics' own."""
    scores = {}
    for evaluated in models:
        name, adapter = evaluated.name, evaluated.adapter
        with timer.timing('scoring', name):
            # Sorted by _merge. Columns of images that could not be read are left out.
            per_image = whole.per_image[name]
            resamples = weights is not None and adapter.resamples
            columns = weights[:, list(per_image)] if resamples else None
            scores[name] = adapter.score(list(per_image.values()), columns)
            if condition == CLEAN and adapter.has_reference:
                adapter.check(list(whole.samples[name].values()), scores[name])
    unreadable = [whole.unreadable[i] for i in sorted(whole.unreadable)]
    return ConditionResult(condition, scores, whole.examples, unreadable, timer.seconds)


def _to_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_cpu(each) for key, each in value.items()}
    if isinstance(value, torch.Tensor):
        # Pickled for another process, a view of one row would take the whole batch along.
        return value.detach().cpu().clone()
    return value.to('cpu') if hasattr(value, 'to') else value


def _synchronize(model: nn.Module) -> None:
    """Wait for a GPU, whose work the timer would else count for the next step."""
    device = next((parameter.device for parameter in model.parameters()), None)
    if device is not None and device.type == 'cuda':
        torch.cuda.synchronize(device)
