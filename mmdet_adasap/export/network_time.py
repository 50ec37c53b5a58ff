# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Time whole networks on a device, as they will run there: without decoding and NMS."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import OnnxMismatchError, one_line
from ..latency import LatencyTable, measure_latency
from ..pruning import TimeShare, copy_model, eval_mode
from .onnx import BoxHead, RawHeads, check_onnx, pooled_features, write_onnx

PAIRS = 5
"""Times that both networks are loaded anew to compare them. Where their memory lies changes their
times: of 24 such pairs of a YOLOX the shares were 0.554 to 0.582, and medians of five are within
1 %."""
SECONDS, ROUNDS = 1.5, (3, 21)
"""Time of the dense network in all rounds of a pair, and the fewest and most rounds."""
BUDGET = 30.0
"""Seconds of the dense network in all pairs. A network that takes seconds is loaded less often:
its time varies less."""
Run = Callable[[], object]
"""Runs a network once."""


def parts(model: nn.Module, shape: Sequence[int]) -> list[tuple[nn.Module, Tensor]]:
    """Return the networks of a model, with random inputs: one, or of two stages two.

    Args:
        model (nn.Module): A detector of mmdet, a classifier of mmpretrain, or any module that
            takes one tensor.
        shape (Sequence[int]): Of the input, ``[N, 3, H, W]``. The second stage gets as many
            regions as ``test_cfg`` lets through.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(tuple(shape), generator=generator)
    if not hasattr(model, 'data_preprocessor'):
        return [(model, inputs)]
    found = [(RawHeads(model), inputs)]
    if hasattr(model, 'roi_head'):
        regions = (model.test_cfg or {}).get('rpn', {}).get('max_per_img', 1000)
        pooled = pooled_features(model, shape[0] * regions)
        if pooled is not None:
            found.append((BoxHead(model.roi_head), pooled))
    return found


def open_network(
    model: nn.Module, shape: Sequence[int], backend: str, device: str, threads: int
) -> Callable[[], Run]:
    """Return a function that loads all networks of a model anew, and returns what runs them once.

    Args:
        model (nn.Module): The model; left as it is.
        shape (Sequence[int]): Of the input.
        backend (str): 'torch', 'onnxruntime' or 'openvino'.
        device (str): 'cpu' or 'cuda'.
        threads (int): Threads of the backend.

    Raises:
        MissingPackageError: If a package of the backend is not installed.
        OnnxMismatchError: If the network cannot be written for the backend.
    """
    model = copy_model(model).cpu().float().eval()
    loaders = []
    for network, inputs in parts(model, shape):
        network.eval()
        if backend == 'torch':
            loaders.append(partial(_load_torch, network, inputs, device))
        else:
            exported = _exported(network, inputs, backend)
            loaders.append(partial(_load_onnx, exported, inputs, backend, device, threads))

    def load() -> Run:
        runs = [each() for each in loaders]
        return lambda: [run() for run in runs]

    return load


def _load_torch(network: nn.Module, inputs: Tensor, device: str) -> Run:
    network, inputs = copy_model(network).to(device), inputs.to(device)

    def run() -> None:
        with torch.inference_mode():
            network(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize()

    return run


def _exported(network: nn.Module, inputs: Tensor, backend: str) -> bytes:
    """Return a network as the content of an ONNX file."""
    check_onnx(f'a network in {backend}', backend)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'network.onnx'
        _write(network, inputs, file)
        return file.read_bytes()


def _load_onnx(exported: bytes, inputs: Tensor, backend: str, device: str, threads: int) -> Run:
    opened = measure_latency.open_backend(backend, device, threads)
    return opened.load(exported, inputs.numpy())


def write_network(model: nn.Module, shape: Sequence[int], file: Path) -> bool:
    """Write the network of a model as an ONNX file, for a device to time.

    Args:
        model (nn.Module): The model; left as it is.
        shape (Sequence[int]): Of the input, which is fixed in the file.
        file (Path): The file.

    Returns:
        bool: Whether it is written: a detector of two stages is not one network.

    Raises:
        MissingPackageError: If onnx is not installed.
        OnnxMismatchError: If the network cannot be written.
    """
    check_onnx('the ONNX file of a network', runtime='')
    networks = parts(copy_model(model).cpu().float().eval(), shape)
    if len(networks) > 1:
        return False
    _write(*networks[0], file)
    return True


def _write(network: nn.Module, inputs: Tensor, file: Path) -> None:
    try:
        with eval_mode(network):
            write_onnx(network, inputs, file, {'input': {}})
    except Exception as error:  # an operation without a counterpart, as a rule
        raise OnnxMismatchError(
            f'{type(network).__name__} cannot be written as ONNX ({one_line(error)}); use '
            f'--no-networks, or a table with --backend torch'
        ) from error


def is_made_here(table: LatencyTable) -> bool:
    """Return whether a table is of this machine, with the backend that is installed."""
    try:
        backend = measure_latency.open_backend(table.backend, table.device, table.threads)
    except measure_latency.RefusedError:
        return False
    backend.close()
    here = (backend.device_name, backend.version)
    return here == (table.device_name, table.backend_version)


def time_share_on(table: LatencyTable) -> TimeShare | None:
    """Return what times cut copies as the table was made; None if this machine is another one.

    Args:
        table (LatencyTable): The table.
    """
    shape = table.input_shape
    if shape is None or not is_made_here(table):
        return None

    return partial(
        time_share,
        shape=shape,
        backend=table.backend,
        device=table.device,
        threads=table.threads,
    )


def time_share(
    dense: nn.Module,
    slim: nn.Module,
    shape: Sequence[int],
    backend: str,
    device: str = 'cpu',
    threads: int = 1,
    pairs: int = PAIRS,
) -> float:
    """Return the time of a network as a share of the dense one's.

    Args:
        dense (nn.Module): The dense model.
        slim (nn.Module): The other one.
        shape (Sequence[int]): Of the input, ``[N, 3, H, W]``.
        backend (str): 'torch', 'onnxruntime' or 'openvino'.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        threads (int): Threads of the backend. Defaults to 1.
        pairs (int): Times that both are loaded anew, of which the median is taken; fewer where
            the dense one would take more than half a minute in all.

    Raises:
        OnnxMismatchError: If a network cannot be written for the backend.
    """
    loaders = {
        name: open_network(model, shape, backend, device, threads)
        for name, model in (('dense', dense), ('slim', slim))
    }
    found = []
    # PyTorch computes with the threads of the process, which a training has set for itself.
    with closing(measure_latency.open_backend(backend, device, threads)):
        while len(found) < pairs:
            runs = {name: load() for name, load in loaders.items()}
            seconds = _seconds(runs['dense'])
            rounds = int(np.clip(SECONDS / seconds, *ROUNDS))
            found.append(measure_latency.ratio_of(runs, threads, rounds, device)['slim'])
            # A reference is timed before each round and after the last.
            pairs = min(pairs, max(1, int(BUDGET / ((rounds + 1) * seconds))))
    return statistics.median(found)


def _seconds(run: Run) -> float:
    """Return the time of a run that is not the first, which allocates memory."""
    run()
    start = time.perf_counter()
    run()
    return max(time.perf_counter() - start, 1e-6)
