# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""List the layers of a model for a device, or time them on this one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from ..export import describe_layers, half_of, open_network, write_network
from ..fileio import write_atomically
from ..latency import LatencyTable, measure_latency
from ..models import preprocess_batch, synthetic_batch
from ..pruning import find_channels
from .pruning import build_forward

Report = Callable[[str], None]


def list_layers(
    model: nn.Module,
    image_size: int | tuple[int, int],
    out: Path,
    config: str = '',
    networks: bool = True,
    report: Report | None = None,
) -> list[Path]:
    """Write what a device has to time: layers.json, two networks, and the program that does it.

    Args:
        model (nn.Module): The dense model.
        image_size (int | tuple[int, int]): Side of a square image in pixels, or height and width.
        out (Path): The JSON file; the networks ``*_dense.onnx`` and ``*_half.onnx`` and
            ``measure_latency.py`` come beside it.
        config (str): Its config, for people who read the file. Defaults to ''.
        networks (bool): Whether to write the two networks, which needs onnx. Defaults to True.
        report (Callable, optional): Called with lines on what is going on.

    Returns:
        list[Path]: The files.

    Raises:
        OnnxMismatchError: If a network cannot be written.
    """
    layers, channels = _layers_of(model, image_size, config)
    written = []
    if networks:
        for name, each in (('dense', model), ('half', half_of(model, channels))):
            file = out.with_name(f'{out.stem}_{name}.onnx')
            if not write_network(each, layers['input'], file):
                _say(report, 'two stages are no single network: the layers alone will be timed')
                break
            _say(report, f'{file.name} is written')
            layers['networks'][name] = file.name
            written.append(file)
    write_atomically(out, json.dumps(layers, indent=1) + '\n')
    program = out.with_name('measure_latency.py')
    shutil.copyfile(measure_latency.__file__, program)
    return [out, *written, program]


def _say(report: Report | None, line: str) -> None:
    if report is not None:
        report(line)


def measure_table(
    model: nn.Module,
    image_size: int | tuple[int, int],
    out: Path,
    backend: str = 'torch',
    device: str = 'cpu',
    threads: int = 1,
    rounds: int = 5,
    config: str = '',
    progress: Callable[[int, int, str], None] | None = None,
) -> LatencyTable:
    """Time the layers of a model on this machine, and two whole networks; go on where it stopped.

    Args:
        model (nn.Module): The dense model.
        image_size (int | tuple[int, int]): Side of a square image in pixels, or height and width.
        out (Path): The table; what is in it is not timed again.
        backend (str): 'torch', 'onnxruntime' or 'openvino'. Defaults to 'torch'.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        threads (int): Threads of the backend. Defaults to 1.
        rounds (int): Timings of each entry, of which the median counts. Defaults to 5.
        config (str): Its config, for people who read the file. Defaults to ''.
        progress (Callable, optional): Called with the entries that are timed, the number of all,
            and the name of the next.

    Returns:
        LatencyTable: The table that was written.

    Raises:
        ValueError: If ``out`` holds a table of another device or setting, or cannot be written.
    """
    layers, channels = _layers_of(model, image_size, config)
    networks = {
        name: open_network(each, layers['input'], backend, device, threads)
        for name, each in (('dense', model), ('half', half_of(model, channels)))
    }
    before = measure_latency.read_table(str(out)) if out.exists() else None
    measure_latency.measure(
        layers,
        backend,
        device,
        threads,
        rounds,
        networks,
        before,
        progress,
        lambda table: measure_latency.write_json(str(out), table),
    )
    return LatencyTable.read(out)


def _layers_of(model: nn.Module, image_size: int | tuple[int, int], config: str) -> Mapping:
    model.eval()
    channels = find_channels(model, build_forward(model, image_size=image_size))
    shape = preprocess_batch(model, synthetic_batch(model, image_size))['inputs'].shape
    return describe_layers(channels, shape, config), channels
