# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Small layers.json and table.json, for tests of latencies."""

import copy

REFERENCE_NS = 1e6
"""A ratio of 1 is a millisecond."""


def layer_key(op: str = 'conv', **changes) -> dict:
    """Return a key as in layers.json: a 3x3 convolution on 8x8 places, or a linear layer."""
    key = {
        'op': op,
        **{name: [1, 1] for name in ('stride', 'padding', 'dilation')},
        **{'kernel': [3, 3], 'groups': 1, 'group_width': None},
        **{'batch': 1, 'map': [8, 8], 'dtype': 'float32'},
    }
    if op == 'linear':
        key.update({name: [] for name in ('kernel', 'stride', 'padding', 'dilation', 'map')})
    return {**key, **changes}


def depthwise_key() -> dict:
    """Return the key of a depthwise convolution that loses whole groups."""
    return layer_key(groups=0, group_width=[1, 1])


def layers_json(*layers: dict) -> dict:
    """Return the content of layers.json."""
    return {
        'format': 'mmdet_adasap layers 1',
        'config': 'yolox.py',
        'input': [1, 3, 8, 8],
        'dtype': 'float32',
        'network': '0123456789abcdef',
        'layers': list(layers),
        'networks': {},
    }


def table_json(*layers: dict, step: int = 1, networks: dict | None = None) -> dict:
    """Return the content of table.json."""
    return {
        'format': 'mmdet_adasap latency table 1',
        **{'backend': 'onnxruntime', 'backend_version': '1.2', 'device': 'cpu'},
        **{'device_name': 'Some CPU', 'threads': 1, 'dtype': 'float32'},
        **{'clock': 'thread CPU time', 'rounds': 5, 'reference_ns': REFERENCE_NS},
        **{'step': step, 'spread': 0.05, 'networks': networks or {}},
        'layers': copy.deepcopy(list(layers)),
    }


def bilinear_layer(a: float, b: float, c: float, d: float, key: dict | None = None) -> dict:
    """Return an entry whose ratios are a + b inputs + c outputs + d inputs outputs."""
    inputs, outputs = [16, 32, 48, 96], [8, 64, 128]
    rows = [[a + b * i + c * o + d * i * o for o in outputs] for i in inputs]
    return {'key': key or layer_key(), 'inputs': inputs, 'outputs': outputs, 'ratios': rows}
