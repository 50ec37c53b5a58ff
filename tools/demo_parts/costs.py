# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a detector costs: parameters, FLOPs, milliseconds."""

import logging
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from mmdet_adasap.apis import load_pruned


def load_detector(config: Path, checkpoint: Path) -> nn.Module:
    """Build the detector of a config, in the shape that a checkpoint has."""
    register_all_modules()
    model = MODELS.build(Config.fromfile(config).model)
    load_pruned(model, str(checkpoint))
    return model.eval()


def measure(models: Mapping[str, nn.Module], config: Path, rounds: int = 60) -> dict[str, dict]:
    """Count parameters and multiply-accumulates, and time one image.

    The models take turns, so that whatever else the machine does hits them alike.

    Args:
        models (Mapping[str, nn.Module]): Detectors by name, for the same input.
        config (Path): Names the test set; its first image is the input.
        rounds (int): Number of timed runs of each. Defaults to 60.

    Returns:
        dict[str, dict]: For each model 'params', 'flops' (as mmengine counts, that is MACs) and
        'latency_ms', the median time of preprocessing, network and NMS.
    """
    dataset = DATASETS.build(Config.fromfile(config).test_dataloader.dataset)
    batch = pseudo_collate([dataset[0]])
    shape = tuple(batch['inputs'][0].shape)
    times = {name: [] for name in models}
    for number in range(5 + rounds):
        for name, model in models.items():
            start = time.perf_counter()
            with torch.no_grad():
                model.test_step(batch)
            if number >= 5:  # the first ones allocate
                times[name].append(time.perf_counter() - start)
    return {
        name: {
            'params': sum(param.numel() for param in model.parameters()),
            'flops': _flops(model, shape),
            'latency_ms': 1000 * statistics.median(times[name]),
        }
        for name, model in models.items()
    }


def _flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    # It warns of every kind of operation that it counts as nothing.
    logging.disable(logging.WARNING)
    try:
        info = get_model_complexity_info(model, shape, show_table=False, show_arch=False)
    finally:
        logging.disable(logging.NOTSET)
    return int(info['flops'])
