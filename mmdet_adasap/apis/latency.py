# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""List the layers of a model for a device, or time them on this one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import nn

from ..export import check_onnx, cut_to_first, describe_layers, open_network, write_network
from ..fileio import write_atomically
from ..latency import LatencyTable, measure_latency
from ..models import preprocess_batch, synthetic_batch
from ..pruning import PrunableChannels, find_channels, timed_networks
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
    """Write what a device has to time: layers.json, three networks, and the program that does it.

    Args:
        model (nn.Module): The dense model.
        image_size (int | tuple[int, int]): Side of a square image in pixels, or height and width.
        out (Path): The JSON file; beside it come ``measure_latency.py`` and the networks of
            :func:`~mmdet_adasap.pruning.timed_networks`, as ``*_dense.onnx``.
        config (str): Its config, for people who read the file. Defaults to ''.
        networks (bool): Whether to write the networks, which needs onnx. Defaults to True.
        report (Callable, optional): Called with lines on what is going on.

    Returns:
        list[Path]: The files.

    Raises:
        MissingPackageError: If a network is to be written and onnx is not installed.
        OnnxMismatchError: If a network cannot be written.
    """
    if networks:
        check_onnx('the ONNX file of a network (--no-networks leaves it out)', runtime='')
    layers, channels = _layers_of(model, image_size, config, report)
    written = []
    if networks:
        for name, counts in timed_networks(channels).items():
            file = out.with_name(f'{out.stem}_{name}.onnx')
            _say(report, f'writing {file.name}')
            network = cut_to_first(model, channels, counts)
            if not write_network(network, layers['input'], file):
                _say(
                    report,
                    'two stages are no single network: no ONNX files, the layers alone are timed',
                )
                break
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
    backend: str = 'onnxruntime',
    device: str = 'cpu',
    threads: int = 1,
    rounds: int = 5,
    config: str = '',
    force: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    report: Report | None = None,
) -> LatencyTable:
    """Time the layers of a model on this machine, and whole networks; go on where it stopped.

    Args:
        model (nn.Module): The dense model.
        image_size (int | tuple[int, int]): Side of a square image in pixels, or height and width.
        out (Path): The table; what is in it is not timed again.
        backend (str): 'torch', 'onnxruntime' or 'openvino'. Defaults to 'onnxruntime'.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        threads (int): Threads of the backend. Defaults to 1.
        rounds (int): Timings of each entry, of which the median counts. Defaults to 5.
        config (str): Its config, for people who read the file. Defaults to ''.
        force (bool): Whether to begin anew if ``out`` is there. Defaults to False.
        progress (Callable, optional): Called with the entries that are timed, the number of all,
            and the name of the next.
        report (Callable, optional): Called with lines on what is going on.

    Returns:
        LatencyTable: The table that was written.

    Raises:
        RefusedError: If ``out`` holds a table of another device or setting, or cannot be written.
        MissingPackageError: If onnx or the backend is needed and not installed.
    """
    before = _table_before(out, backend, device, threads, rounds, force)
    layers, channels = _layers_of(model, image_size, config, report)
    _say(report, f'loading the network, dense and with fewer channels, with {backend}')
    networks = {
        name: open_network(
            cut_to_first(model, channels, counts), layers['input'], backend, device, threads
        )
        for name, counts in timed_networks(channels).items()
    }
    kinds = len(layers['layers'])
    _say(report, f'timing {kinds} kinds of layers into {out}, saved every few seconds')
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


def _table_before(
    out: Path, backend: str, device: str, threads: int, rounds: int, force: bool
) -> dict | None:
    """Return the table that is there; refuse one made otherwise before a model is traced."""
    if backend != 'torch':
        check_onnx(f'--backend {backend}', backend)
    measure_latency.open_backend(backend, device, threads).close()
    if force or not out.exists():
        return None
    before = measure_latency.read_table(str(out))
    asked = {'backend': backend, 'device': device, 'threads': threads, 'rounds': rounds}
    try:
        measure_latency.check_heads(before, {**before, **asked}, measure_latency.OTHER_TABLE)
    except measure_latency.RefusedError as error:
        raise measure_latency.RefusedError(f'--out {out}: {error}') from error
    return before


def _layers_of(
    model: nn.Module, image_size: int | tuple[int, int], config: str, report: Report | None
) -> tuple[dict, PrunableChannels]:
    """Return what layers.json says of a model, and its channels."""
    _say(report, 'tracing the model for what its channels tie together')
    model.eval()
    channels = find_channels(model, build_forward(model, image_size=image_size))
    shape = preprocess_batch(model, synthetic_batch(model, image_size))['inputs'].shape
    return describe_layers(channels, shape, config), channels
