# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
from pathlib import Path

import pytest

from _utils.latency_case import table_json
from mmdet_adasap.latency import LatencyTable, measure_latency

pytest.importorskip('mmpretrain')
ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/demo/dense_resnet18_tiny-imagenet.py')
QUICK = ('--backend', 'torch', '--rounds', 1, '--image-size', 32)


@pytest.fixture(autouse=True)
def short_timings(monkeypatch):
    """Noise does no harm here: what is measured is not looked at."""
    monkeypatch.setattr(measure_latency, 'TIMING_S', 1e-5)


class Stops(measure_latency.Progress):
    """Ctrl-C when some points are timed; keeps how many there were to time."""

    after: float = float('inf')
    totals: list[int]

    def __call__(self, done: int, total: int, name: str) -> None:
        self.totals.append(total)
        if done >= self.after:
            raise KeyboardInterrupt
        super().__call__(done, total, name)


@pytest.fixture
def progress(monkeypatch) -> type[Stops]:
    monkeypatch.setattr(measure_latency, 'Progress', Stops)
    monkeypatch.setattr(Stops, 'totals', [], raising=False)
    return Stops


def test_a_table_that_prunes_the_config(adasap, tmp_path):
    """What lies between the layers, too: the network is found in the table."""
    file = tmp_path / 'table.json'
    code, out, err = adasap('latency', CONFIG, *QUICK, '--out', file)
    assert not code, err
    table = LatencyTable.read(file)
    ((dense, half, _),) = table.networks.values()
    assert out.splitlines()[-1] == str(file)
    assert f'  target=dict(latency=0.6, table={str(file)!r})' in out
    assert f'dense network: {dense / 1e6:.3g} ms; half of all channels: {half / 1e6:.3g}' in out
    for step in ('tracing the model', 'loading the network', f'into {file}', 'done'):
        assert step in err
    assert {line.partition(': ')[0] for line in err.splitlines()} == {'adasap latency'}

    found = tmp_path / 'groups.json'
    code, _, err = adasap(
        *('groups', CONFIG, '--image-size', 32, '--target', 'latency=1', '--table', file),
        *('--json', found),
    )
    assert not code, err
    latency = json.loads(found.read_text())['slim']['latency']
    assert latency['dense_ms'] == pytest.approx(dense / 1e6, abs=2e-6)


def test_ctrl_c_keeps_what_was_measured(adasap, tmp_path, progress, monkeypatch):
    file = tmp_path / 'table.json'
    file.write_text(json.dumps(table_json()))  # of another backend: --force begins anew
    monkeypatch.setattr(progress, 'after', 5)
    code, out, err = adasap('latency', CONFIG, *QUICK, '--out', file, '--force')
    assert code == (
        f'adasap latency: what was measured is in {file}; the same command goes on from here'
    )
    assert not out
    assert 'Traceback' not in err
    assert json.loads(file.read_text())['backend'] == 'torch'
    (total,) = {*progress.totals}

    progress.totals.clear()
    monkeypatch.setattr(progress, 'after', 0)
    code, *_ = adasap('latency', CONFIG, *QUICK, '--out', file)
    assert code.endswith('the same command goes on from here')
    assert progress.totals == [total - 5]


def test_ctrl_c_before_anything_was_measured(adasap, tmp_path, monkeypatch):
    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('mmdet_adasap.apis.latency.find_channels', interrupt)
    code, *_ = adasap('latency', CONFIG, *QUICK, '--out', tmp_path / 'table.json')
    assert code == 'adasap latency: the same command goes on from here'


@pytest.mark.parametrize(
    ('arguments', 'last'),
    [
        (['no_such.py', '--out', 'table.json'], 'latency: no_such.py: '),
        ([CONFIG, '--out', 'no/table.json'], '--out no/table.json: there is no folder no'),
        ([CONFIG, '--out', 'ort.json'], '--out ort.json: backend: onnxruntime and torch; choose'),
        ([CONFIG, '--out', 'torch.json'], '--out torch.json: rounds: 5 and 1; choose another'),
        ([CONFIG, '--out', 'text.json'], 'text.json: is no JSON'),
        ([CONFIG, '--out', '.'], '.: cannot be read'),
    ],
)
def test_errors_are_one_line(adasap, tmp_path, monkeypatch, arguments, last):
    """And come before the model is traced."""
    monkeypatch.chdir(tmp_path)
    Path('ort.json').write_text(json.dumps(table_json()))
    Path('torch.json').write_text(json.dumps({**table_json(), 'backend': 'torch'}))
    Path('text.json').write_text('no table')
    code, out, err = adasap('latency', *arguments, *QUICK)
    assert last in code
    assert '\n' not in code
    assert not out
    assert 'tracing' not in err


@pytest.mark.parametrize(
    ('backend', 'here', 'missing', 'install'),
    [
        ('onnxruntime', [], 'onnx and onnxruntime', 'onnx onnxruntime'),
        ('onnxruntime', ['onnxruntime'], 'onnx', 'onnx onnxruntime'),
        ('openvino', ['onnx'], 'openvino', 'onnx openvino'),
    ],
)
def test_a_backend_that_is_not_installed(
    adasap, tmp_path, monkeypatch, backend, here, missing, install
):
    monkeypatch.setattr('mmdet_adasap.export.onnx.find_spec', lambda name: name in here or None)
    out = tmp_path / 'table.json'
    code, *_ = adasap('latency', CONFIG, '--backend', backend, '--image-size', 32, '--out', out)
    assert code == (
        f'adasap latency: --backend {backend} needs {missing}; install with: pip install {install}'
    )
    assert not out.exists()
