# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from pathlib import Path

import pytest

from mmdet_adasap.apis import build_dense
from mmdet_adasap.export.comparison import compare, format_table
from mmdet_adasap.integration import read_config
from mmdet_adasap.models import noise_batch

pytest.importorskip('mmpretrain')
CONFIG = Path(__file__).parents[2] / 'configs/demo/dense_resnet18_tiny-imagenet.py'
DEVICE = {'table': '0123456789abcdef', 'device': 'onnxruntime 1.2 on Some CPU', 'dense_ms': 2.0}


@pytest.mark.parametrize(
    ('measured', 'clock'), [(1.25, '1.25 ms measured'), (None, 'not measured')]
)
def test_what_the_run_said_of_the_device(measured, clock):
    model = build_dense(CONFIG)
    latency = {**DEVICE, 'predicted_ms': 1.2, 'measured_ms': measured}
    structure = {'target': {'latency': 0.6, 'table': DEVICE['table']}, 'latency': latency}
    report = compare(structure, model, model, noise_batch(read_config(CONFIG)), rounds=1)
    assert report['on_device'] == latency
    line = (
        f'the network on onnxruntime 1.2 on Some CPU: 1.2 ms by the table, {clock}, of 2 ms dense'
    )
    assert line in format_table({**report, 'bytes': SIZES}).splitlines()

    report = compare(
        {'target': {'params': 1.0}}, model, model, noise_batch(read_config(CONFIG)), 1
    )
    assert 'on_device' not in report
    assert 'by the table' not in format_table({**report, 'bytes': SIZES})


SIZES = {'weights': {'dense': 2, 'slim': 1}, 'checkpoint': 3}
