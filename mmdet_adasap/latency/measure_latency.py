# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Measure how long each layer of a network takes on this device.

This one file is all that the device needs, with Python 3.8 or later, NumPy and a backend. It goes
with layers.json, which says what to time; the times go to table.json, and that back to the host.
Each layer is timed between two runs of a reference convolution, and the ratio is kept: a busy or
hot device slows down both. With one CPU thread the CPU time of that thread is taken, which other
processes change little; else wall time, for which the device should be idle.

A run that was stopped goes on with the same command. Tables of one device can be merged. The exit
status is 0, 2 for what the command or a file has wrong, or 130 after Ctrl-C.

examples:
  python measure_latency.py layers.json --backend onnxruntime --out table.json
  python measure_latency.py layers.json --backend torch --device cuda --out table.json
  python measure_latency.py layers.json --backend openvino --threads 4 --rounds 9 --out table.json
  python measure_latency.py --merge a.json b.json --out table.json
  python measure_latency.py --time dense.onnx slim.onnx --input 1 3 320 320 --backend onnxruntime
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

LAYERS_FORMAT = 'mmdet_adasap layers 1'
TABLE_FORMAT = 'mmdet_adasap latency table 1'
HEAD = (
    'backend',
    'backend_version',
    'device',
    'device_name',
    'threads',
    'dtype',
    'clock',
    'rounds',
)
"""What two tables must agree in: ratios of other devices, or other settings, do not mix."""

NETWORKS = ('dense', 'half', 'early')
"""The network as it is, with half of every group, and with half of those in large maps. What runs
between layers follows from them, and what weights take that are not in a cache."""
OTHER_TABLE = 'choose another --out, or --force'
"""What helps where the table in --out was made in another way."""

TIMING_S = 0.008
"""Seconds that one timing lasts at least; an own choice. On a busy server the sum of 99
points repeated within 0.4 % with 8 ms, and within 2 % with 3 ms. So it was for all backends."""
MANY_ROUNDS = 21
"""Rounds in which whole networks are compared: they have no other entries to even out noise."""
LOADS = 3
"""Times that a whole network is loaded and timed. Where its memory lies changes its time, by up to
5 % for SSDLite in PyTorch."""
SAVE_S = 5.0
"""Seconds between savings, which is what a power cut may cost; an own choice."""
LEAST_RATIO = 1e-4
"""Share of the reference, some 0.1 us: a difference of times below it is noise; an own choice."""
STEPS = (32, 16, 8, 4)
STAIR = (*range(32, 61, 4), 61, 62, 63, *range(64, 81, 4))
"""Widths at which the step of the device is looked for; 61 to 63 tell a step of 4 from none."""
FLAT = 1 / 3
"""Share of what time in proportion to width would save, that the lower half of a step may save; an
own choice. PyTorch, ONNX Runtime and OpenVINO have stairs of 16 with AVX-512, and save 0 of it in
steps of 16, 0.6 in steps of 32."""
ONNX_TYPES = {'float32': 1, 'float16': 10}
"""Numbers of element types, from TensorProto.DataType in onnx.proto."""


class RefusedError(ValueError):
    """Raised when something cannot be measured as asked; its one line says what to do.

    It is not under AdaSAPError: the package is not on the device.
    """


def key_id(key: Mapping) -> str:
    """Return the key of a layer as text, the same for equal keys."""
    return json.dumps(key, sort_keys=True)


def readable(key: Mapping) -> str:
    """Return the key of a layer as people write it: 'conv 3x3 stride 1 on 40x40, batch 1'."""
    dtype = '' if key['dtype'] == 'float32' else f', {key["dtype"]}'
    if key['op'] == 'linear':
        rows = key['batch']
        return f'linear, {rows} row{"s" * (rows != 1)}{dtype}'
    same = [(k - 1) * d // 2 for k, d in zip(key['kernel'], key['dilation'])]
    more = f', {key["groups"]} groups' if key['groups'] > 1 else ''
    more += f', dilation {_sides(key["dilation"])}' if max(key['dilation']) > 1 else ''
    more += f', padding {_sides(key["padding"])}' if list(key['padding']) != same else ''
    width = key['group_width']
    kind = '' if not width else f'{width[0]}-to-{width[1]} grouped '
    kind = 'depthwise ' if width == [1, 1] else kind
    kernel, places = ('x'.join(map(str, key[name])) for name in ('kernel', 'map'))
    layer = f'{kind}{key["op"].replace("_", " ")} {kernel} stride {_sides(key["stride"])}'
    return f'{layer} on {places}, batch {key["batch"]}{more}{dtype}'


def _sides(numbers: list[int]) -> str:
    return 'x'.join(map(str, numbers if len(set(numbers)) > 1 else numbers[:1]))


def reference_key(dtype: str) -> dict:
    """Return the layer that all others are compared with; it has 128 inputs and outputs."""
    ones = {name: [1, 1] for name in ('stride', 'padding', 'dilation')}
    sizes = {'kernel': [3, 3], 'map': [40, 40], 'groups': 1, 'group_width': None, 'batch': 1}
    return {'op': 'conv', **ones, **sizes, 'dtype': dtype}


def weight_shape(key: Mapping, inputs: int, outputs: int) -> tuple[list[int], int]:
    """Return the shape of a layer's weight, in PyTorch's and ONNX' order, and its groups."""
    groups = max(key['groups'], 1)
    if key['group_width']:
        groups = inputs // key['group_width'][0]
        outputs = groups * key['group_width'][1]
    if key['op'] == 'linear':
        return [outputs, inputs], 1
    if key['op'] == 'conv_transpose':
        return [inputs, outputs // groups, *key['kernel']], groups
    return [outputs, inputs // groups, *key['kernel']], groups


def noise(shape: list[int], dtype: str = 'float32', scale: float = 1.0) -> np.ndarray:
    """Return numbers around 0; they repeat, for speed, and are the same in each call."""
    pool = np.random.default_rng(0).standard_normal(4099).astype(np.float32) * scale
    return np.resize(pool, shape).astype(dtype)


# ------------------------------------------------------------------------------------ ONNX files


def message(**fields: object) -> bytes:
    """Return a protobuf message, from values by 'f' and the number of the field.

    An int is written as a varint, str and bytes with their length; a list is a repeated field.
    """
    parts = []
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            number = int(name[1:]) << 3
            if isinstance(value, int):
                parts += [_varint(number), _varint(value)]
            else:
                data = value.encode() if isinstance(value, str) else value
                parts += [_varint(number | 2), _varint(len(data)), data]
    return b''.join(parts)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _value_info(name: str, shape: list[int], kind: int) -> bytes:
    dims = message(f1=[message(f1=size) for size in shape])
    return message(f1=name, f2=message(f1=message(f1=kind, f2=dims)))


def _tensor(name: str, array: np.ndarray, kind: int) -> bytes:
    return message(f1=list(array.shape), f2=kind, f8=name, f9=array.tobytes())


def onnx_model(key: Mapping, inputs: int, outputs: int, copies: int) -> bytes:
    """Return an ONNX model of some copies of a layer, which all read the one input.

    A pooling to one place follows each convolution. A runtime has its own layout of maps, and
    converts the input once; it would convert each output, too, which it does not in a network.
    The field numbers are those of onnx.proto.

    Args:
        key (Mapping): The layer.
        inputs (int): Input channels.
        outputs (int): Output channels; not used if the key has a ``group_width``.
        copies (int): How many, each with weights of its own, else a runtime keeps only one.
    """
    kind, linear = ONNX_TYPES[key['dtype']], key['op'] == 'linear'
    shape, groups = weight_shape(key, inputs, outputs)
    outputs = shape[1] * groups if key['op'] == 'conv_transpose' else shape[0]
    operator = {'conv': 'Conv', 'conv_transpose': 'ConvTranspose', 'linear': 'Gemm'}[key['op']]
    attributes = [message(f1='transB', f3=1, f20=2)]
    if not linear:
        lists = {'kernel_shape': key['kernel'], 'strides': key['stride']}
        lists.update(dilations=key['dilation'], pads=[*key['padding'], *key['padding']])
        attributes = [message(f1=name, f8=list(each), f20=7) for name, each in lists.items()]
        attributes.append(message(f1='group', f3=groups, f20=2))
    nodes, tensors, results = [], [], []
    for copy in range(copies):
        x, w, b, y, z = 'x', f'w{copy}', f'b{copy}', f'y{copy}', f'z{copy}'
        tensors.append(_tensor(w, noise(shape, key['dtype'], 0.02 + 0.01 * copy), kind))
        tensors.append(_tensor(b, noise([outputs], key['dtype'], 0.1), kind))
        nodes.append(message(f1=[x, w, b], f2=y, f3=y, f4=operator, f5=attributes))
        if not linear:
            nodes.append(message(f1=y, f2=z, f3=z, f4='GlobalAveragePool'))
        ones = [1] * len(key['kernel'])
        results.append(_value_info(y if linear else z, [key['batch'], outputs, *ones], kind))
    source = _value_info('x', [key['batch'], inputs, *key['map']], kind)
    graph = message(f1=nodes, f2='layer', f5=tensors, f11=source, f12=results)
    return message(f1=7, f7=graph, f8=message(f1='', f2=13))  # IR 7, opset 13: since 2020


# --------------------------------------------------------------------------------------- backends


class TorchBackend:
    """PyTorch, one operator at a time."""

    def __init__(self, device: str, threads: int) -> None:
        import torch

        if device == 'cuda' and not torch.cuda.is_available():
            raise RefusedError('--device: PyTorch finds no cuda here; write cpu')
        self._torch, self._device, self._threads_before = torch, device, torch.get_num_threads()
        torch.set_num_threads(threads)
        self.version = torch.__version__
        self.device_name = torch.cuda.get_device_name() if device == 'cuda' else cpu_name()
        self.synchronize = torch.cuda.synchronize if device == 'cuda' else lambda: None

    def close(self) -> None:
        """Give the process its threads back."""
        self._torch.set_num_threads(self._threads_before)

    def layer(self, key: Mapping, inputs: int, outputs: int) -> list[tuple[Callable, float]]:
        """Return functions that run a layer, and the weight of each one's time."""
        torch, functional = self._torch, self._torch.nn.functional
        shape, groups = weight_shape(key, inputs, outputs)
        to = {'device': self._device, 'dtype': getattr(torch, key['dtype'])}
        weight = torch.from_numpy(noise(shape, scale=0.02)).to(**to)
        x = torch.from_numpy(noise([key['batch'], inputs, *key['map']])).to(**to)
        settings = {}
        if key['op'] == 'linear':
            function = functional.linear
        else:
            function = getattr(functional, f'{key["op"]}{len(key["kernel"])}d')
            settings = {name: tuple(key[name]) for name in ('stride', 'padding', 'dilation')}
            settings['groups'] = groups

        def run() -> None:
            with torch.no_grad():
                function(x, weight, **settings)

        return [(run, 1.0)]


class OnnxRuntimeBackend:
    """ONNX Runtime, on models of single layers."""

    synchronize = close = staticmethod(lambda: None)

    def __init__(self, device: str, threads: int) -> None:
        import onnxruntime

        self._ort, self.version = onnxruntime, onnxruntime.__version__
        self._provider = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}[device]
        if self._provider not in onnxruntime.get_available_providers():
            raise RefusedError(
                f'--device: this ONNX Runtime has no {device}; write --device cpu, or install '
                'onnxruntime-gpu instead of onnxruntime'
            )
        self.device_name = gpu_name() if device == 'cuda' else cpu_name()
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3  # errors only: progress is on the same screen

    def load(self, model: bytes | str, x: np.ndarray) -> Callable[[], object]:
        """Return a function that runs a model, given as bytes or as a file, on an input."""
        session = self._ort.InferenceSession(model, self._options, providers=[self._provider])
        if session.get_providers()[0] != self._provider:
            raise RuntimeError(f'{self._provider} does not start')
        feed = {session.get_inputs()[0].name: x}
        return lambda: session.run(None, feed)

    def layer(self, key: Mapping, inputs: int, outputs: int) -> list[tuple[Callable, float]]:
        """Return functions whose weighted times are the time of a layer inside a network.

        What comes with a run, as converting the input, is in both models and cancels out.
        """
        if key['dtype'] not in ONNX_TYPES:
            raise RuntimeError(f'{key["dtype"]} is not among {", ".join(ONNX_TYPES)}')
        x = noise([key['batch'], inputs, *key['map']], key['dtype'])
        more = 2 if key['op'] == 'linear' else 3  # three of a classifier's would be 1.2 GB
        one, several = (self.load(onnx_model(key, inputs, outputs, n), x) for n in (1, more))
        return [(several, 1 / (more - 1)), (one, -1 / (more - 1))]


class OpenVinoBackend(OnnxRuntimeBackend):
    """OpenVINO, on the same models."""

    def __init__(self, device: str, threads: int) -> None:
        import openvino

        if device != 'cpu':
            raise RefusedError(f'--device: OpenVINO has no {device}; write --device cpu')
        self._core, self.version = openvino.Core(), openvino.__version__.split('-')[0]
        self.device_name = cpu_name()
        self._settings = {'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1}

    def load(self, model: bytes | str, x: np.ndarray) -> Callable[[], object]:
        """Return a function that runs a model, given as bytes or as a file, on an input."""
        # Else a CPU that has bfloat16 would compute in that, whatever the model says.
        precision = {'INFERENCE_PRECISION_HINT': 'f16' if x.dtype == np.float16 else 'f32'}
        compiled = self._core.compile_model(
            self._core.read_model(model), 'CPU', {**self._settings, **precision}
        )
        request = compiled.create_infer_request()
        return lambda: request.infer([x])


BACKENDS = {
    'torch': (TorchBackend, 'pip install torch'),
    'onnxruntime': (OnnxRuntimeBackend, 'pip install onnxruntime'),
    'openvino': (OpenVinoBackend, 'pip install openvino'),
}


def open_backend(name: str, device: str, threads: int) -> TorchBackend | OnnxRuntimeBackend:
    """Return a backend, ready to run layers.

    Raises:
        RefusedError: If there is no such backend, or it is not installed.
    """
    if name not in BACKENDS:
        raise RefusedError(f'--backend: {name} is not known; write {", ".join(BACKENDS)}')
    if device not in ('cpu', 'cuda'):
        raise RefusedError(f'--device: {device} is not known; write cpu or cuda')
    kind, install = BACKENDS[name]
    try:
        return kind(device, threads)
    except ImportError as error:
        raise RefusedError(f'--backend: {name} is not installed ({error}); {install}') from error


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """Say in one line what a backend cannot run: each has errors of its own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RefusedError(
            f'{what}: the backend cannot run it ({reason}); take another backend or device'
        ) from error


def cpu_name() -> str:
    """Return the name of the processor, or of its kind."""
    for path in ('/proc/cpuinfo', '/proc/device-tree/model'):
        try:
            with open(path, errors='replace') as file:
                text = file.read()
        except OSError:
            continue
        found = re.search(r'^model name\s*: (.+)$', text, re.MULTILINE)
        if found or path.endswith('model'):
            return (found.group(1) if found else text).strip('\0 \n')
    return platform.processor() or platform.machine()


def gpu_name() -> str:
    """Return the name of the first NVIDIA GPU."""
    query = ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader']
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return 'cuda'


# ---------------------------------------------------------------------------------------- timing


def moves_finely(clock: Callable[[], float]) -> bool:
    """Return whether a clock moves in steps of 0.1 ms or less.

    That of a thread moves in steps of 16 ms on Windows and of 10 ms in some containers, whatever
    resolution is claimed: most layers would take no time at all.
    """
    start = clock()
    moved = next((step for _ in range(10_000) if (step := clock() - start)), None)
    return moved is not None and moved <= 1e-4


class Stopwatch:
    """Times functions, each repeated until it lasts long enough.

    Args:
        run (Callable): What it will be used for; tells whether the work is done in this thread.
        threads (int): Threads of the backend.
        device (str): 'cpu' or another. Defaults to 'cpu'.
        synchronize (Callable, optional): Waits until the device is done.

    Attributes:
        clock (str): 'thread CPU time' or 'wall time'.
    """

    def __init__(
        self,
        run: Callable,
        threads: int,
        device: str = 'cpu',
        synchronize: Callable[[], None] = lambda: None,
    ) -> None:
        self._now, self.clock, self._synchronize = time.perf_counter, 'wall time', synchronize
        if device != 'cpu' or threads != 1:
            return
        if moves_finely(time.thread_time):
            run()
            before = time.thread_time(), time.process_time()
            run()
            own, all_threads = time.thread_time() - before[0], time.process_time() - before[1]
            if own > all_threads / 2:
                self._now, self.clock = time.thread_time, 'thread CPU time'

    def seconds(self, run: Callable, repeats: int = 1) -> float:
        """Return the seconds of one run, the mean over some."""
        self._synchronize()
        start = self._now()
        for _ in range(repeats):
            run()
        self._synchronize()
        return (self._now() - start) / repeats

    def prepare(self, parts: list[tuple[Callable, float]]) -> Callable[[], float]:
        """Return a function that times a layer, as the weighted sum of its parts, in seconds."""
        once = 0.0
        for run, _ in parts:
            run()  # a first run allocates, compiles, and chooses algorithms
            once += self.seconds(run)
        repeats = max(1, math.ceil(TIMING_S / max(once, 1e-6)))
        return lambda: sum(weight * self.seconds(run, repeats) for run, weight in parts)

    def ratios(self, reference: Callable, timed: Callable, rounds: int) -> list[float]:
        """Return times over those of the reference just before and after, one for each round."""
        found, before = [], reference()
        for _ in range(rounds):
            middle, after = timed(), reference()
            found.append(2 * middle / max(before + after, 1e-9))
            before = after
        return found


def ratio_of(
    runs: Mapping[str, Callable], threads: int = 1, rounds: int = 7, device: str = 'cpu'
) -> dict[str, float]:
    """Compare functions with the first, which runs before and after each run of another.

    Args:
        runs (Mapping[str, Callable]): The functions; those of a GPU have to wait for it.
        threads (int): Threads that they use. Defaults to 1.
        rounds (int): Runs of each, or more where one is short. Defaults to 7.
        device (str): 'cpu' or 'cuda', which has a clock of its own. Defaults to 'cpu'.

    Returns:
        dict[str, float]: The time of each over that of the first, the median over the rounds.
    """
    first, *others = runs
    watch = Stopwatch(runs[first], threads, device)
    timed = {name: watch.prepare([(run, 1.0)]) for name, run in runs.items()}
    found = {name: watch.ratios(timed[first], timed[name], rounds) for name in others}
    return {first: 1.0, **{name: statistics.median(ratios) for name, ratios in found.items()}}


def find_step(times: Mapping[int, float]) -> int:
    """Return the largest step of widths within which fewer channels are no faster.

    Args:
        times (Mapping[int, float]): Output channels to the time of a layer.

    Returns:
        int: One of ``STEPS``; 1 if there are no stairs.
    """
    for step in STEPS:
        saved = share = 0.0
        for width, seconds in times.items():
            top = -(-width // step) * step
            if top in times and top - width >= step / 2:  # else a stair of half the step hides
                saved += 1 - seconds / times[top]
                share += 1 - width / top
        if share and saved <= FLAT * share:
            return step
    return 1


# ----------------------------------------------------------------------------------------- table


def gather(*lists: Iterable[Mapping]) -> dict[str, tuple[Mapping, dict]]:
    """Return the points of entries: key_id to the key, and pairs of widths to ratios or None.

    Entries of one key are put together; the first ratio of a point is kept. Every width is
    combined with every other, for a table has no gaps. A ``group_width`` has outputs of 0.
    """
    found: dict[str, tuple[Mapping, dict]] = {}
    for entry in (entry for entries in lists for entry in entries):
        _, points = found.setdefault(key_id(entry['key']), (entry['key'], {}))
        rows = entry.get('ratios')
        for i, width in enumerate(entry['inputs']):
            for j, other in enumerate(entry.get('outputs', [0])):
                row = rows[i] if rows else None
                ratio = row[j] if isinstance(row, list) else row
                if not isinstance(ratio, (int, float)) or not 0 < ratio < math.inf:
                    ratio = None  # damaged, or not there yet: to be measured
                if points.get((width, other)) is None:
                    points[width, other] = ratio
    for _, points in found.values():
        inputs, outputs = ({pair[axis] for pair in points} for axis in (0, 1))
        missing = {(i, o): None for i in inputs for o in outputs if (i, o) not in points}
        points.update(missing)
    return found


def entries_of(gathered: Mapping[str, tuple[Mapping, dict]]) -> list[dict]:
    """Return the entries of a table, the opposite of :func:`gather`."""
    entries = []
    for key, points in gathered.values():
        inputs, outputs = (sorted({pair[axis] for pair in points}) for axis in (0, 1))
        rows = [[points[i, o] for o in outputs] for i in inputs]
        if key['group_width']:
            entries.append({'key': key, 'inputs': inputs, 'ratios': [row[0] for row in rows]})
        else:
            entries.append({'key': key, 'inputs': inputs, 'outputs': outputs, 'ratios': rows})
    return entries


def point_id(key: Mapping, pair: tuple[int, int]) -> str:
    """Return a layer of certain widths as text, under which its first rounds are kept."""
    return f'{key_id(key)} {pair[0]} {pair[1]}'


def check_heads(one: Mapping, other: Mapping, remedy: str) -> None:
    """Refuse two tables of which one is of another device, or was made in another way."""
    for name in HEAD:
        if one.get(name) != other.get(name):
            raise RefusedError(f'{name}: {one.get(name)} and {other.get(name)}; {remedy}')


def merge(one: Mapping, other: Mapping) -> dict:
    """Return the table of all that two tables of one device hold; the first is kept in doubt."""
    check_heads(one, other, 'only tables that were made alike can be merged')
    return {
        **{name: value for name, value in one.items() if name != 'begun'},
        'reference_ns': (one['reference_ns'] + other['reference_ns']) / 2,
        'step': min(one['step'], other['step']),
        'spread': max(one['spread'], other['spread']),
        'layers': entries_of(gather(one['layers'], other['layers'])),
        'networks': {
            digest: _first_known(
                one['networks'].get(digest, {}), other['networks'].get(digest, {})
            )
            for digest in {**other['networks'], **one['networks']}
        },
    }


def _first_known(one: Mapping, other: Mapping) -> dict:
    """Return the values of two dicts, those of the first where it has one."""
    names = {**other, **one}
    return {name: other.get(name) if one.get(name) is None else one[name] for name in names}


def check_layers(layers: object) -> None:
    """Refuse what is not the content of layers.json, naming the field or the layer."""
    again = 'write the file again with adasap layers'
    if not isinstance(layers, dict) or layers.get('format') != LAYERS_FORMAT:
        raise RefusedError(f'format: not "{LAYERS_FORMAT}"; {again}')
    for name, kind in {'dtype': str, 'network': str, 'input': list, 'layers': list}.items():
        if not isinstance(layers.get(name), kind):
            raise RefusedError(f'{name}: is no {kind.__name__}, or missing; {again}')
    networks = layers.get('networks', {})
    if not isinstance(networks, dict) or set(networks) not in (set(), set(NETWORKS)):
        raise RefusedError(f'networks: are not the files of {", ".join(NETWORKS)}; {again}')
    for number, entry in enumerate(layers['layers']):
        try:
            name, fault = readable(entry['key']), _fault(entry['key'], entry)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            reason = f'{type(error).__name__}: {error}'
            raise RefusedError(f'layer {number}: malformed ({reason}); {again}') from error
        if fault:
            raise RefusedError(f'layer {number}: {name}: {fault}')


def _fault(key: Mapping, entry: Mapping) -> str:
    """Return what is wrong with an entry of layers.json, and what to write; '' if nothing is."""
    if key['op'] not in ('conv', 'conv_transpose', 'linear'):
        return 'this operator cannot be timed; leave the layer out, and its time is not counted'
    sides = [len(key[name]) for name in ('kernel', 'stride', 'padding', 'dilation', 'map')]
    if len(set(sides)) > 1 or sides[0] > 3:
        return f'{sides} numbers in kernel, stride, padding, dilation, map; write one a side'
    grouped = key['group_width']
    for number in grouped or [key['groups']]:
        if type(number) is not int or number < 1:
            return f'{grouped or key["groups"]} in group_width or groups; write 1 or more'
    steps = {'inputs': grouped[0] if grouped else key['groups']}
    if not grouped:
        steps['outputs'] = key['groups']
    for name, step in steps.items():
        grid = entry[name]
        if not grid or grid[0] < 1 or grid != sorted(set(grid)) or any(n % step for n in grid):
            return f'{name} {grid}; write ascending multiples of {step}'
    return ''


class Measurement:
    """A backend with the reference, ready to time layers.

    Args:
        backend (TorchBackend | OnnxRuntimeBackend): The backend.
        dtype (str): Of the reference.
        device (str): 'cpu' or 'cuda'.
        threads (int): Threads of the backend.
        rounds (int): How often each layer is timed.
    """

    def __init__(
        self, backend: OnnxRuntimeBackend, dtype: str, device: str, threads: int, rounds: int
    ) -> None:
        self._backend, self.rounds, self._dtype = backend, rounds, dtype
        with refusing(f'the reference convolution, {dtype}'):
            parts = backend.layer(reference_key(dtype), 128, 128)
            self._watch = Stopwatch(parts[0][0], threads, device, backend.synchronize)
            self._reference = self._watch.prepare(parts)
        self.head = {
            'backend_version': backend.version,
            'device': device,
            'device_name': backend.device_name,
            'threads': threads,
            'dtype': dtype,
            'clock': self._watch.clock,
            'rounds': rounds,
        }

    def empty_table(self, backend: str) -> dict:
        """Return a table without layers: the head, the time of the reference, and the step."""
        reference = statistics.median(self._reference() for _ in range(max(self.rounds, 7)))
        key = reference_key(self._dtype)
        stair = {width: self.layer(key, 64, width, self.rounds) for width in STAIR}
        step = find_step({width: middle_of(ratios) for width, ratios in stair.items()})
        figures = {'reference_ns': reference * 1e9, 'step': step, 'spread': 0.0}
        head = {'format': TABLE_FORMAT, 'backend': backend, **self.head, **figures}
        return {**head, 'layers': [], 'networks': {}}

    def layer(self, key: Mapping, inputs: int, outputs: int, rounds: int) -> list[float]:
        """Return the ratios of a layer that is loaded anew."""
        what = f'{readable(key)}, {inputs} to {outputs or "as many"} channels'
        return self._time(what, lambda: self._backend.layer(key, inputs, outputs), rounds)

    def network(self, name: str, load: Callable[[], Callable]) -> float:
        """Return the ratio of a network that is loaded anew."""
        return middle_of(self._time(f'the network, {name}', lambda: [(load(), 1.0)], self.rounds))

    def _time(
        self, what: str, parts: Callable[[], list[tuple[Callable, float]]], rounds: int
    ) -> list[float]:
        with refusing(what):
            return self._watch.ratios(self._reference, self._watch.prepare(parts()), rounds)


def middle_of(ratios: list[float]) -> float:
    """Return the median of ratios to five digits; what is below noise counts as that much."""
    return float(f'{max(statistics.median(ratios), LEAST_RATIO):.5g}')


def spread_of(ratios: list[float]) -> float:
    """Return how far ratios lie apart: between the quartiles, over the median."""
    found, quarter = sorted(ratios), len(ratios) // 4
    return (found[-1 - quarter] - found[quarter]) / middle_of(ratios)


def measure(
    layers: Mapping,
    backend: str,
    device: str = 'cpu',
    threads: int = 1,
    rounds: int = 5,
    networks: Mapping[str, Callable[[], Callable]] | None = None,
    table: Mapping | None = None,
    report: Callable[[int, int, str], None] | None = None,
    save: Callable[[dict], None] | None = None,
) -> dict:
    """Measure what a table lacks of the layers of a network.

    Args:
        layers (Mapping): The content of layers.json.
        backend (str): 'torch', 'onnxruntime' or 'openvino'.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        threads (int): Threads of the backend on a CPU. Defaults to 1.
        rounds (int): How often each layer is timed. Defaults to 5.
        networks (Mapping[str, Callable], optional): The names of :data:`NETWORKS` to functions
            that load a network and return what runs it once.
        table (Mapping, optional): What was measured before, on this device and with this backend.
        report (Callable, optional): Called with the points that are done, all of them, and the
            name of the next.
        save (Callable, optional): Called with the table every few seconds and at the end, also
            when an error or Ctrl-C ends it. Points that lack rounds are None in it, and the
            rounds that they have are in 'begun'.

    Returns:
        dict: The content of table.json.

    Raises:
        RefusedError: If something is not as it has to be, or the backend cannot run a layer.
    """
    check_layers(layers)
    for name, number in (('threads', threads), ('rounds', rounds)):
        if number < 1:
            raise RefusedError(f'--{name}: {number} is too few; write 1 or more')
    if networks and set(networks) != set(NETWORKS):
        raise RefusedError(f'networks: {", ".join(networks)}; give {", ".join(NETWORKS)}')
    opened = open_backend(backend, device, threads)
    try:
        run = Measurement(opened, layers['dtype'], device, threads, rounds)
        if table is None:
            table = run.empty_table(backend)
        check_heads(table, {'backend': backend, **run.head}, OTHER_TABLE)
        return _fill(run, layers, dict(table), networks or {}, report, save)
    finally:
        opened.close()


def _fill(
    run: Measurement,
    layers: Mapping,
    table: dict,
    networks: Mapping[str, Callable],
    report: Callable | None,
    save: Callable | None,
) -> dict:
    """Measure the points and the networks that a table lacks, see :func:`measure`."""
    gathered, begun = gather(table['layers'], layers['layers']), table.pop('begun', {})
    known = table['networks'] = dict(table['networks'])
    before = {'input': layers['input'], **known.get(layers['network'], {})}
    timed = {name: load for name, load in networks.items() if before.get(name) is None}
    # A table that ends here says that they are not timed yet.
    known[layers['network']] = {**before, **dict.fromkeys(timed)}
    todo = [
        (key, points, pair)
        for key, points in gathered.values()
        for pair in sorted(points)
        if points[pair] is None
    ]
    ratios = [begun.setdefault(point_id(key, pair), []) for key, _, pair in todo]
    steps = [
        (number, key, pair)
        for turn in range(run.rounds)
        for number, (key, _, pair) in enumerate(todo)
        if len(ratios[number]) <= turn
    ]
    total, saved_at = len(steps) + LOADS * len(timed), time.monotonic()
    before_todo = sum(len(points) for _, points in gathered.values()) - len(todo)
    try:
        # Round after round through all layers: what else the machine does changes in seconds, and
        # the rounds of one layer are not to share it, nor where the layer lies in memory.
        for done, (number, key, pair) in enumerate(steps):
            if report:
                report(done, total, readable(key))
            ratios[number] += run.layer(key, *pair, rounds=1)
            if save and time.monotonic() - saved_at > SAVE_S:
                save({**table, 'layers': entries_of(gathered), 'begun': begun})
                saved_at = time.monotonic()
        for number, (_, points, pair) in enumerate(todo):
            points[pair], spread = middle_of(ratios[number]), spread_of(ratios[number])
            table['spread'] += (spread - table['spread']) / (before_todo + number + 1)
        begun.clear()
        found: dict[str, list[float]] = {name: [] for name in timed}
        for number, name in enumerate([*timed] * LOADS, len(steps)):
            if report:
                report(number, total, f'the network, {name}')
            found[name].append(run.network(name, timed[name]))
        shares = {name: statistics.median(ratios) for name, ratios in found.items()}
        known[layers['network']] = {**before, **shares}
    finally:
        table = {**table, 'layers': entries_of(gathered)}
        if begun:
            table['begun'] = begun
        if save:
            save(table)
    return table


# ---------------------------------------------------------------------------------- command line


def read_json(path: str) -> object:
    """Return the content of a JSON file."""
    try:
        with open(path, encoding='utf-8-sig') as file:
            return json.load(file)
    except OSError as error:
        raise RefusedError(f'{path}: cannot be read ({error.strerror}); see the path') from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f'{path}: is no JSON ({error}); copy or write it again') from error


def read_table(path: str) -> dict:
    """Return a table, which may lack points."""
    table = read_json(path)
    try:
        if table['format'] != TABLE_FORMAT:
            raise RefusedError(f'{path}: format: not "{TABLE_FORMAT}"; write another --out')
        table['reference_ns'] + table['step'] + table['spread'] + 0.0
        [{**network} for network in table['networks'].values()]
        entries_of(gather(table['layers']))
        for ratios in table.get('begun', {}).values():  # rounds of layers that lack some
            if not all(isinstance(ratio, float) and math.isfinite(ratio) for ratio in ratios):
                raise TypeError
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise RefusedError(
            f'{path}: is no whole table; write another --out, or --force'
        ) from error
    return table


def write_json(path: str, content: Mapping) -> None:
    """Write a file beside its place and rename it: there is never half of it."""
    partial = f'{path}.{os.getpid()}.part'
    try:
        with open(partial, 'w', encoding='utf-8') as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise RefusedError(
            f'--out: {path} cannot be written ({error.strerror}); write a file in a folder that '
            'is there, with room on its disk'
        ) from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def load_networks(layers: Mapping, folder: str, args: argparse.Namespace) -> dict:
    """Return functions that run the networks of the files beside layers.json."""
    files = layers.get('networks') or {}
    if files and args.backend == 'torch':
        say('networks: left out, files of ONNX are for the other backends')
        return {}
    for name, file in files.items():
        if not isinstance(file, str) or os.path.basename(file) != file:
            raise RefusedError(f'networks: {name}: {file} is no file beside layers.json')
    paths = {name: os.path.join(folder, file) for name, file in files.items()}
    for name, path in paths.items():
        if not os.path.isfile(path):
            raise RefusedError(f'networks: {name}: {path} is not there; copy it to layers.json')
    backend = open_backend(args.backend, args.device, args.threads)
    with refusing('networks'):
        x = noise(layers['input'], layers['dtype'])
        return {name: functools.partial(backend.load, path, x) for name, path in paths.items()}


def say(text: str) -> None:
    """Print a line for the user, in place of the progress."""
    start = '\r\033[K' if sys.stderr.isatty() else ''
    print(f'{start}measure_latency: {text}', file=sys.stderr, flush=True)


class Progress:
    """Shows how far it is: one line that changes on a terminal, else one every 10 seconds.

    Args:
        tell (Callable, optional): Prints a line that stays. Defaults to :func:`say`.
    """

    def __init__(self, tell: Callable[[str], None] = say) -> None:
        self._tell, self._start, self._shown_at = tell, time.monotonic(), -math.inf

    def __call__(self, done: int, total: int, name: str) -> None:
        """Show how many points are done, and which is next."""
        now = time.monotonic()
        if now - self._shown_at < (0.2 if sys.stderr.isatty() else 10):
            return
        self._shown_at = now
        minutes = f'{(now - self._start) / done * (total - done) / 60:.1f}' if done else '?'
        line = f'{100 * done // total:3} %, {done} of {total}, {minutes} minutes left: {name}'
        if sys.stderr.isatty():
            print(f'\r\033[K{line[:79]}', end='', file=sys.stderr, flush=True)
        else:
            self._tell(line.strip())


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('layers', nargs='?', help='layers.json, which says what to time')
    parser.add_argument('--backend', help=f'what runs the network: {", ".join(BACKENDS)}')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: cpu)')
    parser.add_argument(
        '--threads', type=int, default=1, help='of the backend, on a CPU (default: 1)'
    )
    parser.add_argument(
        '--rounds', type=int, default=5, help='how often each layer is timed (default: 5)'
    )
    parser.add_argument('--pin', type=int, metavar='CORE', help='stay on this core')
    parser.add_argument('--out', metavar='FILE', help='table.json, the table')
    parser.add_argument('--force', action='store_true', help='begin anew if --out is there')
    parser.add_argument(
        '--merge', nargs=2, metavar='FILE', help='two tables of one device, to put into --out'
    )
    parser.add_argument(
        '--time',
        nargs='+',
        metavar='ONNX',
        help='instead: compare networks, which run in turns; the first is the dense one',
    )
    parser.add_argument(
        '--input', nargs='+', type=int, metavar='N', help='with --time: shape of the input'
    )
    args = parser.parse_args(arguments)
    if args.merge and args.layers:
        parser.error(
            f'--merge takes two tables, and {args.layers} is a third; merge again with it'
        )
    if args.time and not (args.backend and args.input):
        parser.error('--time needs --backend and --input, as --input 1 3 320 320')
    if not args.time and not (args.out and (args.merge or (args.layers and args.backend))):
        parser.error('write layers.json, --backend and --out; or --merge, two tables and --out')
    return args


def pin(core: int) -> None:
    """Keep the process on one core, where that is allowed."""
    try:
        os.sched_setaffinity(0, {core})
    except (AttributeError, OSError, ValueError, OverflowError) as error:
        say(f'--pin: cannot stay on core {core} ({error}); it goes on without')


def compare_networks(args: argparse.Namespace) -> str:
    """Return the milliseconds of the first network, and the shares of the others."""
    backend = open_backend(args.backend, args.device, args.threads)
    if args.backend == 'torch':
        raise RefusedError('--time: torch runs no ONNX; write onnxruntime or openvino')
    found: dict[str, list[float]] = {file: [] for file in args.time}
    with refusing('--time'):
        x = noise(args.input, 'float32')
        for _ in range(LOADS):
            runs = {file: backend.load(file, x) for file in found}
            for file, ratio in ratio_of(runs, args.threads, MANY_ROUNDS, args.device).items():
                found[file].append(ratio)
        first = args.time[0]
        watch = Stopwatch(runs[first], args.threads, args.device, backend.synchronize)
        seconds = watch.prepare([(runs[first], 1.0)])
        dense = statistics.median(seconds() for _ in range(MANY_ROUNDS))
    shares = {file: statistics.median(ratios) for file, ratios in found.items()}
    lines = [f'{share:6.3f} {1e3 * dense * share:9.3f} ms  {f}' for f, share in shares.items()]
    return '\n'.join([f' share {"time":>9}     ({watch.clock})', *lines])


def run_command(args: argparse.Namespace) -> dict:
    """Measure or merge, and return the table."""
    if args.merge:
        table = merge(*map(read_table, args.merge))
        write_json(args.out, table)
        return table
    if args.pin is not None:
        pin(args.pin)
    layers = read_json(args.layers)
    try:
        check_layers(layers)
    except RefusedError as error:
        raise RefusedError(f'{args.layers}: {error}') from error
    before = None
    if os.path.exists(args.out) and not args.force:
        before = read_table(args.out)
    elif not os.path.isdir(os.path.dirname(args.out) or '.'):
        raise RefusedError(f'--out: {args.out} is in no folder; make the folder first')
    return measure(
        layers,
        args.backend,
        args.device,
        args.threads,
        args.rounds,
        load_networks(layers, os.path.dirname(args.layers), args),
        before,
        Progress(),
        lambda table: write_json(args.out, table),
    )


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """End by SIGTERM as by Ctrl-C; afterwards the process treats it as before."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if before is not None:  # as of a handler that Python does not know
            signal.signal(signal.SIGTERM, before)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = parse_args(arguments)
    try:
        with sigterm_as_interrupt():
            if args.time:
                print(compare_networks(args))
                return 0
            table = run_command(args)
    except RefusedError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        kept = f'what was measured is in {args.out}' if os.path.exists(args.out) else 'too early'
        say(f'stopped; {kept}, the same command goes on')
        return 130
    gathered = gather(table['layers']).values()
    missing = sum(ratio is None for _, points in gathered for ratio in points.values())
    missing += sum(None in network.values() for network in table['networks'].values())
    say(
        f'{args.out}: {len(table["layers"])} kinds of layers, step {table["step"]}, '
        f'half of the rounds within {100 * table["spread"]:.0f} %'
        + (f'; {missing} points are missing: measure with this --out' if missing else '')
    )
    for network in table['networks'].values():
        if network.get('dense') and network.get('half'):
            ms = [network[name] * table['reference_ns'] / 1e6 for name in ('dense', 'half')]
            say(f'dense network {ms[0]:.3g} ms, with half of all channels {ms[1]:.3g} ms')
    if not missing:
        say(f"on the host: target=dict(latency=0.6, table='{os.path.basename(args.out)}')")
    return 0


if __name__ == '__main__':
    sys.exit(main())
