# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What an export says of the device that a model was pruned for."""

import json

import pytest
import torch

pytest.importorskip('mmpretrain')

from _utils.latency_formula import formula_table
from mmdet_adasap.apis import build_dense, export_pruned, prune_model
from mmdet_adasap.apis.pruning import build_forward
from mmdet_adasap.errors import StructureError
from mmdet_adasap.export import format_table
from mmdet_adasap.pruning import META_KEY, find_channels

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)
data_preprocessor = dict(num_classes=10, mean=[125.0] * 3, std=[50.0] * 3, to_rgb=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MobileNetV1', widen_factor=0.25),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256),
)
test_dataloader = dict(
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test',
                 pipeline=[dict(type='PackInputs')]),
)
"""


@pytest.fixture(scope='module')
def pruned(tmp_path_factory):
    """A config, and the checkpoint of a model that was pruned for a latency."""
    folder = tmp_path_factory.mktemp('pruned')
    (folder / 'config.py').write_text(CONFIG)
    torch.manual_seed(0)
    model = build_dense(folder / 'config.py')
    channels = find_channels(model, build_forward(model, image_size=32))
    table = formula_table(channels, shape=(1, 3, 32, 32))
    structure = prune_model(model, target=dict(latency=0.6, table=table))
    return folder / 'config.py', {'meta': {META_KEY: structure}, 'state_dict': model.state_dict()}


def exported(pruned, folder, measured):
    config, checkpoint = pruned
    structure = checkpoint['meta'][META_KEY]
    structure = structure | {'latency': structure['latency'] | {'measured_ms': measured}}
    torch.save(checkpoint | {'meta': {META_KEY: structure}}, folder / 'slim.pth')
    report = export_pruned(config, folder / 'slim.pth', folder / 'out', rounds=1)
    return structure['latency'], report


@pytest.mark.parametrize('measured', [None, 1.25])
def test_milliseconds_of_the_device(pruned, tmp_path, measured):
    latency, report = exported(pruned, tmp_path, measured)
    assert json.loads((tmp_path / 'out' / 'report.json').read_text()) == report
    assert report['device_latency'] == latency
    assert 0.5 < latency['predicted_ms'] / latency['dense_ms'] <= 0.6
    (line,) = (x for x in format_table(report).splitlines() if 'pruned for a latency' in x)
    by_clock = '' if measured is None else ', 1.25 ms measured'
    assert line == (
        f'pruned for a latency: {latency["predicted_ms"]:.3g} ms by the table{by_clock}, of '
        f'{latency["dense_ms"]:.3g} ms dense (torch 0 on a formula, 1 thread, float32)'
    )


def test_nothing_is_said_of_other_targets(pruned, tmp_path):
    config, _ = pruned
    model = build_dense(config)
    structure = prune_model(model, target=dict(params=0.6))
    checkpoint = {'meta': {META_KEY: structure}, 'state_dict': model.state_dict()}
    torch.save(checkpoint, tmp_path / 'slim.pth')
    report = export_pruned(config, tmp_path / 'slim.pth', tmp_path / 'out', rounds=1)
    assert 'device_latency' not in report
    assert 'pruned for a latency' not in format_table(report)


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('dense_ms', None, 'mmdet_adasap.latency.dense_ms is None, no time in milliseconds'),
        ('predicted_ms', -1.0, 'mmdet_adasap.latency.predicted_ms is -1.0, no time'),
        ('measured_ms', 'fast', "mmdet_adasap.latency.measured_ms is 'fast', no time"),
        ('measured_ms', float('nan'), 'mmdet_adasap.latency.measured_ms is nan, no time'),
        ('device', 3, 'mmdet_adasap.latency.device is 3, no text'),
    ],
)
def test_a_damaged_entry_is_one_line(pruned, tmp_path, key, value, message):
    config, checkpoint = pruned
    structure = checkpoint['meta'][META_KEY]
    damaged = structure | {'latency': structure['latency'] | {key: value}}
    torch.save(checkpoint | {'meta': {META_KEY: damaged}}, tmp_path / 'slim.pth')
    with pytest.raises(StructureError) as error:
        export_pruned(config, tmp_path / 'slim.pth', tmp_path / 'out')
    assert message in str(error.value)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'out').exists()
