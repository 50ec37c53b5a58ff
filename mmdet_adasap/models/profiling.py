# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a pruned model saves, beside the dense one: parameters, FLOPs, milliseconds."""

import copy
import functools
import logging
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from torch import Tensor, nn

from ..integration.configs import is_mmpretrain_config
from ..pruning.structure import Keep, named_tensors
from ..pruning.tracing import evaluating

NO_RESIZE = (640, 640)
"""Width and height of the image where the test pipeline names none."""
AS_CIFAR = 32
"""Side of the image where that of a classifier does not resize: CIFAR's."""
WARMUP = 2


@torch.no_grad()
def fill_dense(dense: nn.Module, slim: nn.Module, keep: Keep) -> None:
    """Give a dense model the slim one's weights, and zeros where channels were removed.

    Both then find the same boxes, so that their times differ by nothing but the layers.
    """
    weights, parameters = named_tensors(slim), dict(dense.named_parameters())
    for name, tensor in named_tensors(dense).items():
        value = weights[name].data
        axes = keep.get(name, {})
        for axis, index in axes.items():
            shape = list(value.shape)
            shape[axis] = tensor.shape[axis]
            value = value.new_zeros(shape).index_copy_(axis, torch.tensor(index), value)
        if axes and name not in parameters:  # statistics of a removed channel stay harmless
            kept = torch.ones_like(tensor, dtype=torch.bool)
            for axis, index in axes.items():
                gone = np.setdiff1d(np.arange(tensor.shape[axis]), index)
                kept.index_fill_(axis, torch.as_tensor(gone), False)
            value = torch.where(kept, value, tensor)
        tensor.data.copy_(value)


def noise_batch(config: Config) -> dict:
    """An image of noise that has been through a config's test pipeline, for ``test_step``.

    Raises:
        ValueError: If the config has no test pipeline.
    """
    if 'test_dataloader' not in config:
        raise ValueError(
            f'{config.filename}: test_dataloader is missing, which says how images are prepared; '
            f'export with the config that test.py takes'
        )
    if is_mmpretrain_config(config):
        return _noise_to_classify(config)
    from mmcv.transforms import Compose
    from mmdet.utils import get_test_pipeline_cfg

    pipeline = copy.deepcopy(get_test_pipeline_cfg(config))
    width, height = _scale(pipeline)
    pipeline[0].type = 'mmdet.LoadImageFromNDArray'
    data = Compose(pipeline)(dict(img=_noise(height, width), img_id=0))
    return dict(inputs=[data['inputs']], data_samples=[data['data_samples']])


def _noise_to_classify(config: Config) -> dict:
    from mmcv.transforms import Compose

    pipeline = config.test_dataloader.dataset.pipeline
    others = [t for t in pipeline if not t.type.endswith('LoadImageFromFile')]
    resized = any('scale' in t or 'crop_size' in t for t in others)
    side = NO_RESIZE[0] if resized else AS_CIFAR
    data = Compose(others)(dict(img=_noise(side, side), img_shape=(side, side)))
    return dict(inputs=torch.stack([data['inputs']]), data_samples=[data['data_samples']])


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _scale(pipeline: list[dict]) -> tuple[int, int]:
    for transform in pipeline:
        scale = transform.get('scale')
        if isinstance(scale, list | tuple) and len(scale) == 2:
            return tuple(scale)
    return NO_RESIZE


def preprocessed(model: nn.Module, batch: dict) -> dict:
    """What a model's network is called with for a batch."""
    with evaluating(model):
        return model.data_preprocessor(copy.deepcopy(batch), False)


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def flops_of(model: nn.Module, inputs: Tensor, data_samples: list) -> int:
    """Multiply-accumulates of one image, as mmengine counts them."""
    forward = model.forward
    model.forward = functools.partial(forward, data_samples=data_samples)
    logging.disable(logging.WARNING)  # it names every kind of operation that costs nothing
    try:
        with evaluating(model):
            info = get_model_complexity_info(
                model, inputs=(inputs,), show_table=False, show_arch=False
            )
    finally:
        logging.disable(logging.NOTSET)
        del model.forward
    return int(info['flops'])


def latencies(models: Mapping[str, nn.Module], batch: dict, rounds: int) -> dict:
    """Median milliseconds for one image; the models take turns, so that all else hits them alike.

    Args:
        models (Mapping[str, nn.Module]): By name, all for the same batch.
        batch (dict): As ``test_step`` takes it.
        rounds (int): Timed runs of each.

    Returns:
        dict: 'network_ms' (backbone, neck and heads) and 'whole_ms' (preprocessing, network and
        what makes boxes or a class of its outputs), for each model by its name.
    """

    def network(model: nn.Module) -> Callable[[], object]:
        ready = preprocessed(model, batch)
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
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(WARMUP + rounds):
        for name, run in runs.items():
            _wait_for_gpu()
            start = time.perf_counter()
            run()
            _wait_for_gpu()
            if number >= WARMUP:  # the first ones allocate
                times[name].append(time.perf_counter() - start)
    return {name: round(1000 * statistics.median(t), 2) for name, t in times.items()}


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def table(report: Mapping) -> str:
    """A report as text."""
    size, latency = report['bytes'], report['latency']
    rows = [
        ('parameters', *_pair(report['parameters']), '{:,}'),
        ('GFLOPs (MACs)', *(v / 1e9 for v in _pair(report['flops'])), '{:.3f}'),
        ('weights, MB', *(v / 1e6 for v in _pair(size['weights'])), '{:.2f}'),
        ('network, ms', *_pair(latency['network_ms']), '{:.1f}'),
        ('end to end, ms', *_pair(latency['whole_ms']), '{:.1f}'),
    ]
    lines = [f'{"":16}{"dense":>14}{"slim":>14}{"slim/dense":>12}']
    for name, dense, slim, form in rows:
        ratio = f'{slim / dense:.3f}'
        lines.append(f'{name:16}{form.format(dense):>14}{form.format(slim):>14}{ratio:>12}')
    height, width = latency['image']
    lines += [
        f'one image of {height} x {width}, {latency["threads"]} CPU threads, torch '
        f'{latency["torch"]}, median of {latency["rounds"]} runs in turns',
        f'the checkpoint had {size["checkpoint"] / 1e6:.2f} MB',
    ]
    for name, found in report.get('onnx', {}).items():
        lines.append(
            f'{name}: {found["bytes"] / 1e6:.2f} MB, {found["difference"]:.1e} of the largest '
            f'output from torch; {found["holds"]}'
        )
    return '\n'.join(lines)


def _pair(values: Mapping) -> tuple:
    return values['dense'], values['slim']
