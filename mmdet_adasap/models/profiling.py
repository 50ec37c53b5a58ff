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
    """Return median milliseconds for one image.

    The models take turns, so that other load of the machine slows all of them alike.

    Args:
        models (Mapping[str, nn.Module]): By name, all for the same batch.
        batch (dict): As ``test_step`` takes it.
        rounds (int): Timed runs of each.

    Returns:
        dict: 'network_ms' (backbone, neck and heads) and 'whole_ms' (preprocessing, network and
        what makes boxes or a class of its outputs), for each model by its name.
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
        return {'network_ms': _medians(networks, rounds), 'whole_ms': _medians(whole, rounds)}


def _medians(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each function over all rounds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARMUP + rounds):
        for name, run in runs.items():
            _wait_for_gpu()
            start = time.perf_counter()
            run()
            _wait_for_gpu()
            if number >= WARMUP:
                times[name].append(time.perf_counter() - start)
    return {name: round(1000 * statistics.median(t), 2) for name, t in times.items()}


def _wait_for_gpu() -> None:
    """Wait for queued kernels, which a call starts and does not wait for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
