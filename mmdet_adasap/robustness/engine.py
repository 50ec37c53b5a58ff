# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Test models on conditions, cell after cell; they share every image."""

import time
from collections.abc import Callable, Iterator, Sequence
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
from .datasets.multi_view import (
    CLEAN,
    Condition,
    MultiViewBatch,
    MultiViewImages,
    Unreadable,
    multi_view_loader,
)
from .metrics import MetricAdapter, Score


@dataclass
class EvaluatedModel:
    """A model under test.

    Args:
        name (str): What it is called.
        model (nn.Module): In eval mode, on its device.
        adapter (Scorer): What its config's test_evaluator comes to.
        view (int): The pipeline that prepares its images. Defaults to 0.
        fp16 (bool): As in the config's test_cfg. Defaults to False.
    """

    name: str
    model: nn.Module
    adapter: MetricAdapter
    view: int = 0
    fp16: bool = False


@dataclass
class ConditionResult:
    """What came of one condition.

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


@dataclass
class _Found:
    """What one process has of a cell: for each model its records by the image's number."""

    records: dict[str, dict[int, Any]] = field(default_factory=dict)
    examples: dict[str, dict[int, dict]] = field(default_factory=dict)
    samples: dict[str, dict[int, dict]] = field(default_factory=dict)
    unreadable: dict[int, Unreadable] = field(default_factory=dict)


class _Clock:
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


def evaluate_conditions(
    subjects: Sequence[EvaluatedModel],
    images: MultiViewImages,
    conditions: Sequence[Condition],
    collate: Callable,
    batch_size: int = 1,
    workers: int = 0,
    weights: np.ndarray | None = None,
    examples: Sequence[int] = (),
    progress: Callable[[int], object] = lambda images: None,
) -> Iterator[ConditionResult | None]:
    """Test models on images under each condition.

    In several processes each takes some of the batches; rank 0 has the results.

    Args:
        subjects (Sequence[Subject]): The models.
        images (MultiViewImages): N images.
        conditions (Sequence[Condition]): In this order.
        collate (Callable): Makes a batch of what a pipeline gives for each of its images.
        batch_size (int): Images in a batch. Defaults to 1.
        workers (int): Processes that load images, for each process. Defaults to 0.
        weights (ndarray, optional): How often each image counts in each resample, (R, N).
        examples (Sequence[int]): Numbers of the images whose detections are kept. Defaults to ().
        progress (Callable): Called with the number of images after each batch.

    Yields:
        Cell | None: One for each condition; None in the other processes.

    Raises:
        ModelFailedError: Naming the model and the condition.
        LoadingFailedError: Naming the condition.
        ValueError: If none of the images can be read.
    """
    rank, processes = get_dist_info()
    loader = multi_view_loader(images, conditions, batch_size, collate, workers, rank, processes)
    iterator = iter(loader)
    mine = len(range(rank * batch_size, len(images), processes * batch_size))
    names = [subject.name for subject in subjects]
    for condition in conditions:
        clock, found = _Clock(names), _Found(*({name: {} for name in names} for _ in range(3)))
        for _ in range(mine):
            start = time.perf_counter()
            batch = _next(iterator, condition)
            clock.seconds['images'] += time.perf_counter() - start
            found.unreadable.update(batch.unreadable)
            for subject in subjects if batch.positions else ():
                _test(subject, batch, found, clock, set(examples))
            progress(len(batch.positions) + len(batch.unreadable))
        found = _put_together(all_gather_object(found), names)
        if len(found.unreadable) == len(images):
            first = found.unreadable[min(found.unreadable)]
            raise ValueError(
                f'none of {len(images)} images can be read: {first.image}: {first.error}'
            )
        yield _scored(subjects, condition, found, weights, clock) if rank == 0 else None


def _next(iterator: Iterator[MultiViewBatch], condition: Condition) -> MultiViewBatch:
    """The next batch; what goes wrong in a worker is said as if it had gone wrong here."""
    try:
        return next(iterator)
    except Exception as error:
        _refuse_dead_worker(error)
        raise loading_failed(condition, error) from error


def loading_failed(condition: Condition, error: Exception) -> LoadingFailedError:
    """An error that says in one line what could not be loaded, and why."""
    text = str(error).strip()
    if 'Original Traceback' in text:  # as a worker's come
        text = text.splitlines()[-1]
    else:
        text = f'{type(error).__name__}: {text}'
    return LoadingFailedError(f'{condition} cannot be loaded: {text}')


def _refuse_dead_worker(error: Exception) -> None:
    """PyTorch says it wherever the program happens to be."""
    if isinstance(error, RuntimeError) and str(error).startswith('DataLoader worker'):
        raise LoadingFailedError(
            f'{error}; perhaps there was too little memory: give fewer --workers, and the same '
            f'command goes on from here'
        ) from error


@torch.no_grad()
def _test(
    subject: EvaluatedModel,
    batch: MultiViewBatch,
    found: _Found,
    clock: _Clock,
    examples: set[int],
) -> None:
    """Have one model look at one batch.

    What it writes into the samples the next one does not see: test_step begins with putting them
    on the device, and that makes new ones around the same tensors.
    """
    name, view = subject.name, batch.views[subject.view]
    with clock.timing('forward', name):
        try:
            with autocast(enabled=subject.fp16):
                outputs = subject.model.test_step(view)
        except Exception as error:
            _refuse_dead_worker(error)
            raise ModelFailedError(
                f'model {name} fails on {batch.condition}, image number '
                f'{batch.positions[0]}: {type(error).__name__}: {error}'
            ) from error
        _wait_for_device(subject.model)
    with clock.timing('scoring', name):
        samples = [
            output.to_dict() if isinstance(output, BaseDataElement) else output
            for output in outputs
        ]
        records = subject.adapter.records(samples, view)
        for position, sample, record in zip(batch.positions, samples, records, strict=True):
            found.records[name][position] = record
            if position in examples:
                found.examples[name][position] = subject.adapter.example(sample)
            if batch.condition == CLEAN and subject.adapter.has_reference:
                found.samples[name][position] = _on_cpu(sample)


def _scored(
    subjects: Sequence[EvaluatedModel],
    condition: Condition,
    found: _Found,
    weights: np.ndarray | None,
    clock: _Clock,
) -> ConditionResult:
    scores = {}
    for subject in subjects:
        name = subject.name
        with clock.timing('scoring', name):
            records = found.records[name]
            if weights is not None and subject.adapter.resamples:
                drawn = weights[:, sorted(records)]
            else:
                drawn = None
            order = sorted(records)
            scores[name] = subject.adapter.score([records[i] for i in order], drawn)
            if condition == CLEAN and subject.adapter.has_reference:
                subject.adapter.check([found.samples[name][i] for i in order], scores[name])
    unreadable = [found.unreadable[i] for i in sorted(found.unreadable)]
    return ConditionResult(condition, scores, found.examples, unreadable, clock.seconds)


def _put_together(parts: Sequence[_Found], names: Sequence[str]) -> _Found:
    """The images of all processes, in order."""

    def merged(kind: str, name: str) -> dict:
        every = {i: value for part in parts for i, value in getattr(part, kind)[name].items()}
        return {i: every[i] for i in sorted(every)}

    by_name = [
        {name: merged(kind, name) for name in names} for kind in ('records', 'examples', 'samples')
    ]
    unreadable = {i: value for part in parts for i, value in part.unreadable.items()}
    return _Found(*by_name, unreadable=unreadable)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _on_cpu(each) for key, each in value.items()}
    if isinstance(value, torch.Tensor):
        # One row of a batch would take the whole of it along to other processes.
        return value.detach().cpu().clone()
    return value.to('cpu') if hasattr(value, 'to') else value


def _wait_for_device(model: nn.Module) -> None:
    device = next((parameter.device for parameter in model.parameters()), None)
    if device is not None and device.type == 'cuda':
        torch.cuda.synchronize(device)
