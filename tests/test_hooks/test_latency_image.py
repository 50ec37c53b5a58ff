# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The image that a detector is traced with where a table says what size it was made for."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmdet')

from mmengine.dataset import pseudo_collate

from _utils.latency_formula import formula_table
from mmdet_adasap.apis import build_dense
from mmdet_adasap.apis.pruning import build_forward
from mmdet_adasap.errors import LatencyTableError
from mmdet_adasap.export import describe_layers
from mmdet_adasap.hooks.runner_state import sample_forward
from mmdet_adasap.models import synthetic_batch
from mmdet_adasap.pruning import LatencyCost, find_channels

DEMO = Path(__file__).parents[2] / 'configs/demo/dense_yolox_tiny-voc.py'
SIZE = (96, 128)


class FirstImage:
    """A Runner, as far as a trace needs one: a model and a set of one image."""

    def __init__(self, model, size) -> None:
        batch = synthetic_batch(model, size)
        sample = dict(inputs=batch['inputs'][0] / 2, data_samples=batch['data_samples'][0])
        self.model = model
        loader = SimpleNamespace(dataset=[sample], collate_fn=pseudo_collate)
        self.val_loop = self.train_loop = SimpleNamespace(dataloader=loader)


@pytest.fixture(scope='module')
def model_and_table():
    model = build_dense(DEMO)
    channels = find_channels(model, build_forward(model, image_size=SIZE))
    return model, formula_table(channels, shape=(1, 3, *SIZE), networks=(90.0, 40.0))


def inputs_seen(model, forward) -> torch.Tensor:
    seen = []
    handle = model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        forward(model)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize('size', [(64, 64), SIZE])
def test_the_size_is_that_of_the_table(model_and_table, size):
    model, table = model_and_table
    runner = FirstImage(model.eval(), size)
    forward = sample_forward(runner, SIZE)
    seen = inputs_seen(model, forward)
    assert seen.shape == (1, 3, *SIZE)
    # An image that has the size is taken as it is; it is darker than the noise.
    assert (seen.max() < 70) == (size == SIZE)
    channels = find_channels(model, forward)
    cost = LatencyCost(channels, table)
    assert cost.has_rest
    # What adasap latency calls this network.
    assert describe_layers(channels, seen.shape, '')['network'] in table.networks


def test_without_the_size_the_first_layer_is_named(model_and_table):
    model, table = model_and_table
    forward = sample_forward(FirstImage(model.eval(), (64, 64)))
    with pytest.raises(LatencyTableError, match=r'has not timed conv 3x3 stride 1 on 32x32, ba'):
        LatencyCost(find_channels(model, forward), table)
