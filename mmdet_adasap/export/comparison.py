# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The dense and the slim model side by side: parameters, FLOPs, bytes, milliseconds."""

import io
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..models import count_parameters, measure_flops, measure_latencies, preprocess_batch
from ..pruning import Keep, latency_text, named_tensors
from ..version import __version__
from .folder import REPORT_MARK


@torch.no_grad()
def load_slim_weights(dense: nn.Module, slim: nn.Module, keep: Keep) -> None:
    """Copy the weights of a slim model into the dense one, with zeros for removed channels.

    Both then return the same boxes. Their times differ by the layers alone, and not by how many
    boxes NMS has to sort.

    Args:
        dense (nn.Module): The dense model; changed in place.
        slim (nn.Module): The slim model.
        keep (dict): Tensor name to axis to kept indices.
    """
    weights, parameters = named_tensors(slim), dict(dense.named_parameters())
    for name, tensor in named_tensors(dense).items():
        value = weights[name].data
        axes = keep.get(name, {})
        for axis, index in axes.items():
            shape = list(value.shape)
            shape[axis] = tensor.shape[axis]
            value = value.new_zeros(shape).index_copy_(axis, torch.tensor(index), value)
        # A removed channel keeps its initial statistics: a variance of 0 would divide by eps.
        if axes and name not in parameters:
            kept = torch.ones_like(tensor, dtype=torch.bool)
            for axis, index in axes.items():
                gone = np.setdiff1d(np.arange(tensor.shape[axis]), index)
                kept.index_fill_(axis, torch.as_tensor(gone), False)
            value = torch.where(kept, value, tensor)
        tensor.data.copy_(value)


def checkpoint_bytes(model: nn.Module) -> int:
    """Return the bytes that a model's weights take in a file, as an export writes them."""
    buffer = io.BytesIO()
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, buffer)
    return buffer.tell()


def compare(
    structure: Mapping, dense: nn.Module, slim: nn.Module, batch: dict, rounds: int
) -> dict:
    """Measure both models.

    Args:
        structure (Mapping): What the slim model was cut to.
        dense (nn.Module): The dense model, with the weights of the slim one.
        slim (nn.Module): The slim model.
        batch (dict): One image, as ``test_step`` takes it.
        rounds (int): Timed runs of each.

    Returns:
        dict: What report.json holds of it: parameters and multiply-accumulates by model, and
        milliseconds with what they were measured under; 'device_latency' of the device that the
        model was pruned for, if it was.
    """
    models = {'dense': dense, 'slim': slim}
    ready = preprocess_batch(slim, batch)
    inputs = ready['inputs']
    latency = structure.get('latency')
    device = {} if latency is None else {'device_latency': dict(latency)}
    return device | {
        REPORT_MARK: f'mmdet_adasap {__version__}',
        'target': dict(structure['target']),
        'parameters': {name: count_parameters(model) for name, model in models.items()},
        'flops': {
            name: measure_flops(model, inputs, ready['data_samples'])
            for name, model in models.items()
        },
        'latency': measure_latencies(models, batch, rounds)
        | {
            'rounds': rounds,
            'threads': torch.get_num_threads(),
            'image': list(inputs.shape[2:]),
            'torch': torch.__version__,
        },
    }


def format_table(report: Mapping) -> str:
    """Return a report as a table in text.

    Args:
        report (Mapping): What :func:`~mmdet_adasap.export.export_pruned` returned.

    Returns:
        str: Several lines.
    """
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
    if 'device_latency' in report:
        lines.append(f'pruned for a latency: {latency_text(report["device_latency"])}')
    if not report['target']:
        lines.append('the checkpoint is dense: both columns are the same model')
    for name, found in report.get('onnx', {}).items():
        lines.append(
            f'{name}: {found["bytes"] / 1e6:.2f} MB, {found["difference"]:.1e} of the largest '
            f'output from torch; {found["holds"]}'
        )
    return '\n'.join(lines)


def _pair(values: Mapping) -> tuple:
    """Return the values of both models, the dense one first."""
    return values['dense'], values['slim']
