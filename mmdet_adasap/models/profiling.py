# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a model costs: parameters, FLOPs, milliseconds."""

import copy
import functools
import logging
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.model import BaseTTAModel
from torch import Tensor, nn

from ..integration import quiet_logging, unwrapped
from ..pruning import eval_mode

WARMUP = 2
"""Untimed rounds: the first runs of a model allocate memory and choose kernels."""


def preprocess_batch(model: nn.Module, batch: dict) -> dict:
    """Return what a model's ``forward`` takes for a batch of ``test_step``.

    Args:
        model (nn.Module): A model of mmengine.
        batch (dict): As ``test_step`` takes it; left as it is. Of test-time augmentation the first
            view is taken.

    Returns:
        dict: ``inputs`` and ``data_samples``, preprocessed.
    """
    if isinstance(model, BaseTTAModel):
        model, batch = model.module, {key: views[0] for key, views in batch.items()}
    with eval_mode(model):
        return model.data_preprocessor(copy.deepcopy(batch), False)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure_flops(model: nn.Module, inputs: Tensor, data_samples: list) -> int:
    """Return the multiply-accumulates of a batch, as mmengine counts them.

    Args:
        model (nn.Module): A model of mmengine.
        inputs (Tensor): Preprocessed images, ``[N, C, H, W]``.
        data_samples (list): Their samples.
    """
    forward = model.forward
    model.forward = functools.partial(forward, data_samples=data_samples)
    # mmengine warns of every kind of operation that it does not count.
    try:
        with quiet_logging(logging.WARNING), eval_mode(model):
            info = get_model_complexity_info(
                model, inputs=(inputs,), show_table=False, show_arch=False
            )
    finally:
        del model.forward  # the attribute; the method of the class remains
    return int(info['flops'])


def measure_latencies(models: Mapping[str, nn.Module], batch: dict, rounds: int) -> dict:
    """Return the milliseconds of one image: medians over the rounds, and quartiles.

    The models take turns, so that other load of the machine slows all of them alike.

    Args:
        models (Mapping[str, nn.Module]): By name, all for the same batch.
        batch (dict): As ``test_step`` takes it.
        rounds (int): Timed runs of each.

    Returns:
        dict: Medians 'network_ms' (backbone, neck and heads) and 'whole_ms' (preprocessing,
        network and what makes boxes or a class of its outputs), for each model by its name; and
        'network_quartiles_ms' and 'whole_quartiles_ms', the lower and the upper one.
    """

    def network(model: nn.Module) -> Callable[[], object]:
        ready = preprocess_batch(model, batch)
        model = unwrapped(model)  # that of test-time augmentation has no forward
        return lambda: model(ready['inputs'], ready['data_samples'], mode='tensor')

    networks = {name: network(model) for name, model in models.items()}
    whole = {
        name: functools.partial(model.test_step, copy.deepcopy(batch))
        for name, model in models.items()
    }
    for model in models.values():
        model.eval()
    with torch.no_grad():
        found = {'network': _times(networks, rounds), 'whole': _times(whole, rounds)}
    report = {}
    for part, times in found.items():
        report[f'{part}_ms'] = {
            name: round(statistics.median(each), 2) for name, each in times.items()
        }
        report[f'{part}_quartiles_ms'] = {
            name: [round(end, 2) for end in _quartiles(each)] for name, each in times.items()
        }
    return report


def _quartiles(values: list[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return low, high


def _times(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each function in all rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARMUP + rounds):
        for name, run in runs.items():
            _wait_for_gpu()
            start = time.perf_counter()
            run()
            _wait_for_gpu()
            if number >= WARMUP:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def _wait_for_gpu() -> None:
    """Wait for queued kernels, which a call starts and does not wait for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
