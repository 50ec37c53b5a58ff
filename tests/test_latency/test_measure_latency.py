# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import ast
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from _utils.latency_case import depthwise_key, layer_key, layers_json, table_json
from mmdet_adasap.errors import LatencyTableError
from mmdet_adasap.latency import LatencyTable, measure_latency
from mmdet_adasap.latency.measure_latency import (
    NETWORKS,
    RefusedError,
    find_step,
    measure,
    merge,
    onnx_model,
    ratio_of,
    weight_shape,
)

SOURCE = Path(measure_latency.__file__)
CONV = {'key': layer_key(), 'inputs': [16, 32], 'outputs': [16, 48]}
DEPTHWISE = {'key': depthwise_key(), 'inputs': [16, 32]}
LINEAR = {'key': layer_key('linear', batch=4), 'inputs': [8], 'outputs': [6]}
ONLY_LAYERS = layers_json(CONV, DEPTHWISE)
FIRST = 'conv 3x3 stride 1 on 8x8, batch 1'


class SlowingDevice:
    """A clock that runs set forward, and a backend that takes longer and longer."""

    def __init__(self) -> None:
        self.now, self.slowness, self.made = 0.0, 1.0, []
        self.version, self.device_name = '1.0', 'a slowing device'
        self.fail_at, self.drift = None, 10.0
        self.perf_counter = self.thread_time = self.process_time = self.monotonic = self.read

    def read(self) -> float:
        self.now += 1e-9
        return self.now

    def run(self, seconds: float):
        def take():
            self.now += seconds * self.slowness
            self.slowness *= math.exp(self.drift * seconds)

        return take

    def layer(self, key, inputs, outputs):
        """Take time in stairs of 16."""
        if self.fail_at is not None and len(self.made) >= self.fail_at:
            raise KeyboardInterrupt
        self.made.append((key['op'], inputs, outputs))
        width = inputs * 128 if key['group_width'] else inputs * (-(-outputs // 16) * 16)
        return [(self.run(1e-3 * width / 128**2), 1.0)]

    def synchronize(self):
        pass

    def close(self):
        pass


@pytest.fixture(autouse=True)
def _short_timings(monkeypatch):
    monkeypatch.setattr(measure_latency, 'TIMING_S', 1e-4)


@pytest.fixture
def device(monkeypatch):
    device = SlowingDevice()
    monkeypatch.setattr(measure_latency, 'time', device)
    monkeypatch.setitem(measure_latency.BACKENDS, 'fake', (lambda *args: device, ''))
    return device


class TestMeasure:
    def test_ratios_on_a_device_that_slows_down(self, device):
        table = measure(ONLY_LAYERS, 'fake')
        conv, depthwise = (entry['ratios'] for entry in table['layers'])
        exact = np.outer([16, 32], [16, 48]) / 128**2
        # It is some times slower at the end, and what is timed between references is not.
        assert device.slowness > 3
        np.testing.assert_allclose(conv, exact, rtol=0.03)
        np.testing.assert_allclose(depthwise, [16 / 128, 32 / 128], rtol=0.03)
        assert table['step'] == 16
        assert table['clock'] == 'thread CPU time'

    def test_table_can_be_read(self, device):
        table = LatencyTable(measure(ONLY_LAYERS, 'fake'))
        assert table.step == 16
        assert table.time(depthwise_key(), 32) > table.time(depthwise_key(), 16)
        assert table.describe() == 'fake 1.0 on a slowing device, 1 thread, float32'

    def test_goes_on_after_ctrl_c(self, device):
        saved = []
        device.fail_at = 1 + len(measure_latency.STAIR) + 3
        with pytest.raises(KeyboardInterrupt):
            measure(ONLY_LAYERS, 'fake', save=saved.append)
        assert saved[-1]['layers'][0]['ratios'] == [[None, None]] * 2
        assert [len(ratios) for ratios in saved[-1]['begun'].values()] == [1, 1, 1, 0, 0, 0]
        device.fail_at, device.made = None, []
        table = measure(ONLY_LAYERS, 'fake', table=json.loads(json.dumps(saved[-1])))
        reference, *made = device.made
        assert reference == ('conv', 128, 128)
        # The first round goes on, and four follow, through all layers each.
        layers = [*product(('conv',), (16, 32), (16, 48)), ('conv', 16, 0), ('conv', 32, 0)]
        assert made == layers[3:] + 4 * layers
        # It is as if nothing had happened.
        assert 'begun' not in table
        whole = measure(ONLY_LAYERS, 'fake')
        for entry, other in zip(table['layers'], whole['layers'], strict=True):
            assert {**entry, 'ratios': 0} == {**other, 'ratios': 0}
            np.testing.assert_allclose(entry['ratios'], other['ratios'], rtol=0.05)

    def test_other_widths_are_added(self, device):
        table = measure(ONLY_LAYERS, 'fake')
        device.made = []
        more = layers_json({**CONV, 'inputs': [32, 64], 'outputs': [48]})
        table = measure(more, 'fake', table=table)
        assert device.made[1:] == 5 * [('conv', 64, 16), ('conv', 64, 48)]
        assert [len(entry['inputs']) for entry in table['layers']] == [3, 2]
        LatencyTable(table)

    def test_report_and_save(self, device):
        told, saved = [], []
        measure(ONLY_LAYERS, 'fake', report=lambda *args: told.append(args), save=saved.append)
        assert [number for number, _, _ in told] == list(range(30))
        assert {total for _, total, _ in told} == {30}
        assert told[-1][2] == 'depthwise conv 3x3 stride 1 on 8x8, batch 1'
        LatencyTable(saved[-1])

    def test_networks(self, device):
        device.drift = 1.0
        networks = {
            name: partial(device.run, seconds)
            for name, seconds in zip(NETWORKS, (0.02, 0.005, 0.01), strict=True)
        }
        table = measure(ONLY_LAYERS, 'fake', networks=networks)
        found = table['networks']['0123456789abcdef']
        assert found['input'] == [1, 3, 8, 8]
        assert [found[name] for name in NETWORKS] == pytest.approx([20, 5, 10], rel=0.05)
        again = measure(ONLY_LAYERS, 'fake', networks=dict.fromkeys(NETWORKS), table=table)
        assert again['networks'] == table['networks']

    def test_network_that_fails(self, device):
        def fail():
            raise RuntimeError('Got: 3 Expected: 1\nmore')

        saved, runs = [], dict.fromkeys(NETWORKS, lambda: fail)
        with pytest.raises(RefusedError, match=r'the network, dense: .* \(Got: 3 Expected: 1\); '):
            measure(ONLY_LAYERS, 'fake', networks=runs, save=saved.append)
        with pytest.raises(LatencyTableError, match='the network as a whole: not measured yet'):
            LatencyTable(saved[-1])
        with pytest.raises(RefusedError, match='networks: dense; give dense, half, early'):
            measure(ONLY_LAYERS, 'fake', networks={'dense': fail})

    def test_other_device(self, device):
        table = measure(ONLY_LAYERS, 'fake')
        with pytest.raises(RefusedError, match='threads: 1 and 2; choose another --out'):
            measure(ONLY_LAYERS, 'fake', threads=2, table={**table, 'clock': 'wall time'})
        device.device_name = 'a new one'
        with pytest.raises(RefusedError, match='device_name: a slowing device and a new one; '):
            measure(ONLY_LAYERS, 'fake', table=table)

    def test_threads_that_the_backend_has_of_its_own_need_the_wall_clock(self, device):
        device.thread_time = lambda: device.now / 10
        assert measure(ONLY_LAYERS, 'fake')['clock'] == 'wall time'

    def test_clock_of_a_thread_that_moves_in_jumps_is_not_taken(self, device):
        reads = iter(range(10**9))
        device.thread_time = lambda: next(reads) // 100 * 0.01
        assert measure(ONLY_LAYERS, 'fake')['clock'] == 'wall time'

    def test_two_threads_need_the_wall_clock(self, device):
        device.thread_time = None
        assert measure(ONLY_LAYERS, 'fake', threads=2)['clock'] == 'wall time'

    def test_layer_that_the_backend_refuses(self):
        layers = layers_json({**CONV, 'key': layer_key(kernel=[9, 9])}, LINEAR)
        layers['layers'][0]['key']['padding'] = [0, 0]
        what = 'conv 9x9 .* on 8x8, .*, 16 to 16 channels: the backend cannot run it .*Kernel size'
        saved = []
        with pytest.raises(RefusedError, match=what):
            measure(layers, 'torch', rounds=1, save=saved.append)
        assert saved[-1]['layers'][0]['ratios'] == [[None, None]] * 2

    def test_dtype_that_is_none(self):
        what = 'the reference convolution, float7: the backend cannot run it .*float7'
        with pytest.raises(RefusedError, match=what):
            measure({**ONLY_LAYERS, 'dtype': 'float7'}, 'torch')

    def test_torch_keeps_its_threads(self):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            table = measure(layers_json(CONV, DEPTHWISE, LINEAR), 'torch', rounds=1)
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(before)
        assert LatencyTable(table).backend_version == torch.__version__


class TestMerge:
    def test_two_tables(self, device):
        one = measure(layers_json(CONV), 'fake')
        other = measure(layers_json({**CONV, 'outputs': [48, 64]}, DEPTHWISE), 'fake')
        table = merge(one, other)
        conv, depthwise = table['layers']
        assert conv['outputs'] == [16, 48, 64]
        first = one['layers'][0]['ratios']
        assert conv['ratios'] == [[*a, b[1]] for a, b in zip(first, other['layers'][0]['ratios'])]  # noqa: B905
        assert depthwise == other['layers'][1]
        LatencyTable(table)

    def test_rounds_of_layers_that_lack_some_are_not_merged(self, device):
        device.fail_at = 1 + len(measure_latency.STAIR) + 3
        saved = []
        with pytest.raises(KeyboardInterrupt):
            measure(ONLY_LAYERS, 'fake', save=saved.append)
        device.fail_at = None
        table = merge(saved[-1], measure(ONLY_LAYERS, 'fake'))
        assert 'begun' not in table
        LatencyTable(table)

    def test_networks_that_were_not_timed_yet_stay_so(self, device):
        one = measure(ONLY_LAYERS, 'fake')
        begun = {'0123456789abcdef': {'input': [1, 3, 8, 8], 'dense': 2.0, 'half': None}}
        table = merge({**one, 'networks': begun}, {**one, 'networks': {}})
        assert table['networks'] == begun
        more = {'0123456789abcdef': {'input': [1, 3, 8, 8], 'dense': 3.0, 'half': 1.0}}
        table = merge({**one, 'networks': begun}, {**one, 'networks': more})
        assert table['networks']['0123456789abcdef']['dense'] == 2.0
        assert table['networks']['0123456789abcdef']['half'] == 1.0

    def test_of_another_backend(self, device):
        one = measure(layers_json(CONV), 'fake')
        with pytest.raises(RefusedError, match='backend: fake and torch; only tables'):
            merge(one, {**one, 'backend': 'torch'})


@pytest.mark.parametrize('step', [1, 4, 8, 16, 32])
def test_find_step(step):
    # A fifth of noise in a part that does not depend on the width, as on a busy machine.
    times = {width: 20 + -(-width // step) * step for width in measure_latency.STAIR}
    assert find_step(times) == step


def test_find_step_of_measured_times():
    """Thousandths of the reference, of ONNX Runtime 1.31.1 on a Xeon with AVX-512."""
    widths = measure_latency.STAIR
    times = [144, 202, 200, 206, 196, 266, 267, 263, 263, 265, 265, 253, 358, 356, 367, 352]
    assert find_step(dict(zip(widths, times, strict=True))) == 16


def test_ratio_of(device):
    device.drift = 1.0
    ratios = ratio_of({'dense': device.run(0.03), 'half': device.run(0.012)}, rounds=5)
    assert ratios == pytest.approx({'dense': 1, 'half': 0.4}, rel=0.02)


KEYS = [
    (layer_key(), 8, 12),
    (layer_key(kernel=[3, 1], stride=[2, 1], padding=[1, 0], dilation=[2, 1]), 4, 6),
    (layer_key(groups=2, batch=2), 8, 12),
    (depthwise_key(), 8, 8),
    (layer_key(groups=0, group_width=[2, 4]), 6, 12),
    (layer_key('conv_transpose', stride=[2, 2], padding=[0, 0]), 6, 4),
    (layer_key('conv_transpose', groups=0, group_width=[2, 4]), 6, 12),
    (
        layer_key(kernel=[3], stride=[1], padding=[1], dilation=[1], map=[300]),
        5,
        7,
    ),
    (layer_key('linear', batch=5), 300, 7),
]


@pytest.mark.parametrize('copies', [1, 2])
@pytest.mark.parametrize(('key', 'inputs', 'outputs'), KEYS)
def test_onnx_model_computes_the_layer(key, inputs, outputs, copies):
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(onnx_model(key, inputs, outputs, copies))
    x = torch.randn(key['batch'], inputs, *key['map'])
    found = session.run(None, {'x': x.numpy()})
    assert len(found) == copies
    shape, groups = weight_shape(key, inputs, outputs)
    for number, result in enumerate(found):
        weight = torch.from_numpy(measure_latency.noise(shape, scale=0.02 + 0.01 * number))
        bias = torch.from_numpy(measure_latency.noise([outputs], scale=0.1))
        if key['op'] == 'linear':
            expected = torch.nn.functional.linear(x, weight, bias)
        else:
            settings = [key[name] for name in ('stride', 'padding', 'dilation')]
            function = getattr(torch.nn.functional, f'{key["op"]}{len(key["kernel"])}d')
            names = dict(zip(('stride', 'padding', 'dilation'), settings, strict=True))
            expected = function(x, weight, bias, groups=groups, **names)
            expected = expected.mean(dim=tuple(range(2, expected.ndim)), keepdim=True)
        np.testing.assert_allclose(result, expected.numpy(), rtol=1e-4, atol=1e-4)


class Alone:
    """The file alone in a folder, run as on a device, which has nothing of this package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(SOURCE, folder)
        self.write('layers.json', layers_json({**LINEAR}))

    def write(self, name: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.folder / name).write_text(text)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, '-I', SOURCE.name, *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=90)


@pytest.fixture
def alone(tmp_path):
    return Alone(tmp_path)


def test_alone_on_a_device(alone):
    arguments = ('layers.json', '--backend', 'torch', '--rounds', '1', '--out', 'table.json')
    done = alone.run(*arguments, '--pin', '1000')
    assert done.returncode == 0, done.stderr
    first, *_, summary, last = done.stderr.splitlines()
    assert first.startswith('measure_latency: --pin: cannot stay on core 1000 (')
    assert summary.startswith('measure_latency: table.json: 1 kinds of layers, step ')
    assert last.endswith("target=dict(latency=0.6, table='table.json')")
    assert LatencyTable.read(alone.folder / 'table.json').backend == 'torch'
    left = {SOURCE.name, 'layers.json', 'table.json'}
    assert {file.name for file in alone.folder.iterdir()} == left


class TestCommand:
    """The command line, in this process: Python needs a second to start."""

    @pytest.fixture
    def command(self, device, alone, monkeypatch, capsys):
        monkeypatch.chdir(alone.folder)

        def run(*arguments: str) -> tuple[int, str]:
            status = measure_latency.main(list(arguments))
            return status, capsys.readouterr().err

        run.folder, run.write, run.device = alone.folder, alone.write, device
        return run

    MEASURE = ('layers.json', '--backend', 'fake', '--out', 'table.json')

    def test_goes_on(self, command):
        command.write('layers.json', layers_json(CONV))
        command.device.fail_at = 1 + len(measure_latency.STAIR) + 1
        status, said = command(*self.MEASURE)
        assert status == 130
        assert said.endswith('is in table.json, the same command goes on\n')
        command.device.fail_at, command.device.made = None, []
        status, said = command(*self.MEASURE)
        assert status == 0
        layers = [*product(('conv',), (16, 32), (16, 48))]
        assert command.device.made[1:] == layers[1:] + 4 * layers
        LatencyTable.read(command.folder / 'table.json')

    def test_sigterm_ends_it_as_ctrl_c_does_and_nothing_after_it(self, command):
        command.write('layers.json', layers_json(CONV))
        command.device.synchronize = lambda: signal.raise_signal(signal.SIGTERM)
        before = signal.getsignal(signal.SIGTERM)
        status, said = command(*self.MEASURE)
        assert (status, said[-45:]) == (130, 'stopped; too early, the same command goes on\n')
        assert signal.getsignal(signal.SIGTERM) is before

    def test_other_device_and_force(self, command):
        assert command(*self.MEASURE)[0] == 0
        status, said = command(*self.MEASURE, '--rounds', '3')
        assert status == 2
        assert said == 'measure_latency: rounds: 5 and 3; choose another --out, or --force\n'
        assert command(*self.MEASURE, '--rounds', '3', '--force')[0] == 0
        assert json.loads((command.folder / 'table.json').read_text())['rounds'] == 3

    def test_merge(self, command):
        for name, layer in {'a': CONV, 'b': {**CONV, 'inputs': [64]}, 'c': DEPTHWISE}.items():
            command.write('layers.json', layers_json(layer))
            command('layers.json', '--backend', 'fake', '--out', f'{name}.json')
        status, said = command('--merge', 'a.json', 'c.json', '--out', 'd.json')
        assert (status, said.count('\n')) == (0, 2)
        assert len(json.loads((command.folder / 'd.json').read_text())['layers']) == 2
        command.write('layers.json', layers_json({**CONV, 'outputs': [96]}))
        command('layers.json', '--backend', 'fake', '--out', 'e.json')
        status, said = command('--merge', 'b.json', 'e.json', '--out', 'f.json')
        assert said.endswith('; 5 points are missing: measure with this --out\n')
        command('layers.json', '--backend', 'fake', '--out', 'f.json')
        table = LatencyTable.read(command.folder / 'f.json')
        assert table.time(layer_key(), 64, 96) > table.time(layer_key(), 32, 48)

    @pytest.mark.parametrize(
        ('content', 'what'),
        [
            ('{"format"', 'layers.json: is no JSON (Expecting'),
            ([], 'layers.json: format: not "mmdet_adasap layers 1"; '),
            ({**ONLY_LAYERS, 'format': 'mmdet_adasap layers 2'}, 'layers.json: format: not'),
            ({'format': ONLY_LAYERS['format']}, 'layers.json: dtype: is no str, or missing; '),
            ({**ONLY_LAYERS, 'layers': 3}, 'layers.json: layers: is no list, or missing; '),
            ({**ONLY_LAYERS, 'networks': ['a']}, 'layers.json: networks: are not the files of '),
            (layers_json({}), "layers.json: layer 0: malformed (KeyError: 'key'); "),
            (layers_json({**LINEAR, 'key': 3}), 'layers.json: layer 0: malformed (TypeError: '),
            (
                layers_json(CONV, {**CONV, 'key': layer_key('attention')}),
                'layers.json: layer 1: attention 3x3 stride 1 on 8x8, batch 1: this operator',
            ),
            (layers_json({**CONV, 'inputs': [2, 1]}), 'layers.json: layer 0: conv 3x3 stride 1'),
            (layers_json({**CONV, 'outputs': []}), 'layers.json: layer 0: conv 3x3 stride 1'),
            (
                layers_json({**CONV, 'key': layer_key(stride=[1])}),
                'layers.json: layer 0: conv 3x3 stride 1 on 8x8, batch 1: [2, 1, 2, 2, 2] numbers',
            ),
            (
                layers_json({**CONV, 'key': layer_key(groups=32)}),
                'layers.json: layer 0: conv 3x3 stride 1 on 8x8, batch 1, 32 groups: inputs [16,',
            ),
            (layers_json({**CONV, 'outputs': ['2']}), 'layers.json: layer 0: malformed'),
            (
                layers_json({**CONV, 'key': layer_key(groups=0)}),
                f'layers.json: layer 0: {FIRST}: 0 in group_width or groups; write',
            ),
            (
                {**layers_json(CONV), 'networks': dict.fromkeys(NETWORKS, '../x.onnx')},
                'networks: dense: ../x.onnx is no file beside layers.json',
            ),
            (
                layers_json({'key': layer_key(groups=0, group_width=[4, 4]), 'inputs': [4, 6]}),
                'layers.json: layer 0: 4-to-4 grouped conv 3x3 stride 1 on 8x8, batch 1: inputs',
            ),
        ],
    )
    def test_layers_are_malformed(self, command, content, what):
        command.write('layers.json', content)
        status, said = command(*self.MEASURE)
        assert (status, said.count('\n')) == (2, 1)
        assert said.startswith(f'measure_latency: {what}')
        assert not (command.folder / 'table.json').exists()

    @pytest.mark.parametrize(
        ('arguments', 'what'),
        [
            (('no.json', '--backend', 'fake'), 'no.json: cannot be read (No such file'),
            (('layers.json', '--backend', 'tf'), '--backend: tf is not known; write torch, onnx'),
            (('layers.json', '--backend', 'fake', '--threads', '0'), '--threads: 0 is too few'),
            (('layers.json', '--backend', 'fake', '--rounds', '-1'), '--rounds: -1 is too few'),
            (
                ('layers.json', '--backend', 'fake', '--device', 'tpu'),
                '--device: tpu is not known',
            ),
            (
                ('layers.json', '--backend', 'fake', '--out', 'no/table.json'),
                '--out: no/table.json',
            ),
            (('layers.json', '--backend', 'fake', '--out', '.'), '.: cannot be read (Is a dir'),
            (
                ('layers.json', '--backend', 'fake', '--out', 'layers.json'),
                'layers.json: format: ',
            ),
            (('--merge', 'layers.json', 'layers.json'), 'layers.json: format: '),
        ],
    )
    def test_mistakes(self, command, arguments, what):
        out = () if '--out' in arguments else ('--out', 'table.json')
        status, said = command(*arguments, *out)
        assert (status, said.count('\n')) == (2, 1)
        assert said.startswith(f'measure_latency: {what}')

    def test_table_that_is_none(self, command):
        command(*self.MEASURE)
        table = json.loads((command.folder / 'table.json').read_text())
        for broken in (
            {**table, 'layers': [{}]},
            {**table, 'step': None},
            {**table, 'begun': 3},
            {**table, 'begun': {'conv 16 16': ['0.1']}},
            {'format': table['format']},
        ):
            command.write('table.json', broken)
            status, said = command(*self.MEASURE)
            assert status == 2
            assert said.startswith('measure_latency: table.json: is no whole table; ')

    def test_network_file_is_missing(self, command):
        networks = {name: f'{name}.onnx' for name in NETWORKS}
        command.write('layers.json', {**ONLY_LAYERS, 'networks': networks})
        status, said = command(*self.MEASURE)
        assert status == 2
        assert said.startswith('measure_latency: networks: dense: dense.onnx is not there; ')

    def test_disk_is_full(self, command, monkeypatch):
        def full(*args):
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr(os, 'fsync', full)
        status, said = command(*self.MEASURE)
        assert status == 2
        assert 'table.json cannot be written (No space left on device); ' in said
        assert [file.name for file in command.folder.glob('table*')] == []

    def test_backend_is_not_installed(self, command, monkeypatch):
        monkeypatch.setitem(sys.modules, 'openvino', None)
        status, said = command('layers.json', '--backend', 'openvino', '--out', 'table.json')
        assert status == 2
        assert said.startswith('measure_latency: --backend: openvino is not installed (')
        assert said.endswith('; pip install openvino\n')


def test_networks_of_onnxruntime(tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    for name, width in {'dense': 512, 'half': 16, 'early': 64}.items():
        key = layer_key(map=[16, 16])
        (tmp_path / f'{name}.onnx').write_bytes(onnx_model(key, 16, width, 2))
    files = {name: f'{name}.onnx' for name in NETWORKS}
    layers = {**layers_json(LINEAR), 'networks': files, 'input': [1, 16, 16, 16]}
    paths = [str(tmp_path / name) for name in ('layers.json', 'table.json')]
    arguments = [paths[0], '--backend', 'onnxruntime', '--rounds', '3', '--out', paths[1]]
    (tmp_path / 'layers.json').write_text(json.dumps({**layers, 'input': [1, 8, 16, 16]}))
    assert measure_latency.main(arguments) == 2
    assert 'the network, dense: the backend cannot run it (' in capsys.readouterr().err
    (tmp_path / 'layers.json').write_text(json.dumps(layers))
    assert measure_latency.main(arguments) == 0
    dense, half, early = LatencyTable.read(paths[1]).network('0123456789abcdef')
    assert half < early < dense


def test_runs_where_python_is_old():
    # Python 3.8 is what some boards have; the tests run on a newer one, so only syntax is seen.
    ast.parse(SOURCE.read_text(), feature_version=(3, 8))


def test_help(capsys):
    with pytest.raises(SystemExit):
        measure_latency.main(['--help'])
    said = capsys.readouterr().out
    assert 'python measure_latency.py --merge a.json b.json --out table.json' in said


def test_networks_are_compared(tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    for name, width in {'dense': 512, 'slim': 32}.items():
        key = layer_key(map=[16, 16])
        (tmp_path / f'{name}.onnx').write_bytes(onnx_model(key, 16, width, 2))
    files = [str(tmp_path / f'{name}.onnx') for name in ('dense', 'slim')]
    options = ['--input', '1', '16', '16', '16', '--backend', 'onnxruntime']
    assert measure_latency.main(['--time', *files, *options]) == 0
    _, dense, slim = capsys.readouterr().out.splitlines()
    assert dense.split()[0] == '1.000'
    assert 0 < float(slim.split()[0]) < 0.5
    assert measure_latency.main(['--time', str(tmp_path / 'no.onnx'), *options]) == 2
    assert 'measure_latency: --time: the backend cannot run it (' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['a.json', '--merge', 'b.json', 'c.json', '--out', 'd.json'], 'a.json is a third'),
        (['--time', 'a.onnx'], '--time needs --backend and --input'),
        (['layers.json', '--backend', 'torch'], 'write layers.json, --backend and --out'),
    ],
)
def test_options_that_do_not_go_together(arguments, said, capsys):
    with pytest.raises(SystemExit):
        measure_latency.main(arguments)
    assert said in capsys.readouterr().err


def test_a_merge_keeps_networks_that_one_of_them_has():
    first, second = table_json(), table_json(networks={'ab': {'dense': 9.0, 'half': 4.0}})
    first['networks'] = {'ab': {'input': [1, 3, 8, 8]}}
    for merged in (measure_latency.merge(first, second), measure_latency.merge(second, first)):
        assert merged['networks']['ab'] == {'input': [1, 3, 8, 8], 'dense': 9.0, 'half': 4.0}
