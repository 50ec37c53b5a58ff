# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The example in configs/latency, with the model that it was measured of."""

from pathlib import Path

import pytest

from mmdet_adasap.apis import build_dense, build_forward
from mmdet_adasap.latency import LatencyTable
from mmdet_adasap.pruning import MagnitudeImportance, Pruner, find_channels

pytest.importorskip('mmdet')
TABLE = Path(__file__).parents[2] / 'configs/latency/yolox-s_320px_onnxruntime-1-thread.json'


def test_is_small_and_says_where_it_is_from():
    assert TABLE.stat().st_size < 60_000
    assert LatencyTable.read(TABLE).describe() == (
        'onnxruntime 1.31.1 on Intel(R) Xeon(R) Processor, 1 thread, float32'
    )


@pytest.mark.long
def test_prunes_yolox_s_to_its_latency():
    model = build_dense('mmdet::yolox/yolox_s_8xb8-300e_coco.py')
    forward = build_forward(model, image_size=320)
    target = dict(latency=0.6, table=str(TABLE))
    pruner = Pruner(model, forward, target, MagnitudeImportance(), round_to=16, solver='joint')
    table, cost = pruner.target.table, pruner.limits.costs['latency']
    # The dense network is that of the table, with what runs between its layers.
    ((dense, *_),) = table.networks.values()
    assert cost(pruner.channels.group_sizes) == pytest.approx(dense, abs=1)

    pruner.prune_to(pruner.targets)
    structure = pruner.cut()
    assert structure['dense']['latency'] == pytest.approx(dense, abs=1)
    assert 0.58 < structure['reached']['latency'] <= 0.6
    slim = find_channels(model, forward)
    assert all(size % table.step == 0 for size in slim.group_sizes)
    # The layers of the model that was cut, by the same table, and what is between them as before.
    left = type(cost)(slim, table)
    assert not left.has_rest
    assert 0.4 * dense < left(slim.group_sizes) < 0.6 * dense
