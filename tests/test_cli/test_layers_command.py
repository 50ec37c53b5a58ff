# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.latency.measure_latency import NETWORKS

pytest.importorskip('mmpretrain')
ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/demo/dense_resnet18_tiny-imagenet.py')
SMALL = ('--image-size', 32)


@pytest.mark.long
def test_the_files_are_all_that_a_device_needs(adasap, tmp_path):
    """Without this package on its path (-I), and the table that comes back fits the model."""
    code, out, err = adasap(
        'layers', CONFIG, *SMALL, '--no-networks', '--out', tmp_path / 'a.json'
    )
    assert not code, err
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'measure_latency.py']
    (command,) = [line for line in out.splitlines() if line.startswith('  python ')]
    assert command == '  python measure_latency.py a.json --backend onnxruntime --out table.json'

    on_device = command.replace('onnxruntime', 'torch').split()[1:]
    done = subprocess.run(
        [sys.executable, '-I', *on_device, '--rounds', '1'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    layers = json.loads((tmp_path / 'a.json').read_text())['layers']
    table = LatencyTable.read(tmp_path / 'table.json')
    assert not table.missing([layer['key'] for layer in layers])
    code, out, err = adasap(
        *('groups', CONFIG, *SMALL, '--target', 'latency=0.9'),
        *('--table', tmp_path / 'table.json'),
    )
    assert not code, err
    assert 'cutting channels cannot go below' in out


def test_networks_are_written_beside(adasap, tmp_path):
    pytest.importorskip('onnx')
    code, out, err = adasap('layers', CONFIG, *SMALL, '--out', tmp_path / 'layers.json')
    assert not code, err
    networks = json.loads((tmp_path / 'layers.json').read_text())['networks']
    assert networks == {name: f'layers_{name}.onnx' for name in NETWORKS}
    dense, half, _ = (tmp_path / name for name in networks.values())
    assert half.stat().st_size < 0.3 * dense.stat().st_size
    for file in (dense, half, tmp_path / 'measure_latency.py'):
        assert f'  {file}' in out.splitlines()
    for step in ('tracing the model', 'writing layers_dense.onnx', 'writing layers_early.onnx'):
        assert step in err


@pytest.mark.long
def test_two_stages_are_no_network(adasap, tmp_path):
    pytest.importorskip('onnx')
    pytest.importorskip('mmdet')
    config = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    code, _, err = adasap('layers', config, '--image-size', 64, '--out', tmp_path / 'layers.json')
    assert not code, err
    assert 'two stages are no single network: no ONNX files' in err
    layers = json.loads((tmp_path / 'layers.json').read_text())
    assert layers['networks'] == {}
    # The second stage reads as many regions as test_cfg lets through.
    batches = {each['key']['batch'] for each in layers['layers'] if each['key']['op'] == 'linear'}
    assert batches == {1000}


@pytest.mark.parametrize(
    ('arguments', 'last'),
    [
        (['no_such.py', '--out', 'layers.json'], 'layers: no_such.py: '),
        ([CONFIG, '--out', 'no/layers.json'], '--out no/layers.json: there is no folder no'),
        ([CONFIG, '--out', '.'], '--out .: is a folder; write layers.json'),
        (
            [CONFIG, *SMALL, '--out', 'layers.json'],
            'the ONNX file of a network (--no-networks leaves it out) needs onnx; install with: '
            'pip install onnx',
        ),
    ],
)
def test_errors_are_one_line(adasap, tmp_path, monkeypatch, arguments, last):
    """And leave nothing behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmdet_adasap.export.onnx.find_spec', lambda name: None)
    code, out, _ = adasap('layers', *arguments)
    assert last in code
    assert '\n' not in code
    assert not out
    assert not list(tmp_path.iterdir())
