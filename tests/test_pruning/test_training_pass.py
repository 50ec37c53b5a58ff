# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Layers that run in train mode alone are traced, cut with the others, and compared."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d
from torch.nn import functional as F

from _utils.nets import Net, randomise, runs
from mmdet_adasap.apis import prune_model
from mmdet_adasap.pruning import find_channels

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def auxiliary(aux_of=lambda net, y: net.aux(net.drop(net.norm(y)))) -> Net:
    """A classifier with a head that helps in training alone, as GoogLeNet has."""

    def run(net: Net, x: Tensor) -> Tensor | tuple:
        y = net.first(x).relu()
        out = net.head(net.second(y).relu().mean((2, 3)))
        return (out, aux_of(net, y)) if net.training else out

    torch.manual_seed(0)
    return randomise(
        Net(
            run,
            first=Conv2d(3, 16, 3),
            second=Conv2d(16, 16, 3),
            head=nn.Linear(16, 4),
            norm=nn.BatchNorm2d(16),
            drop=nn.Dropout(0.5),
            aux=Conv2d(16, 4, 1),
        )
    )


def test_a_pruned_model_trains_with_its_auxiliary_head():
    model = auxiliary()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        prune_model(model, inputs=X, target=dict(params=0.5), round_to=1)
    out, aux = model.train()(X)
    assert out.shape == (2, 4)
    assert aux.shape == (2, 4, 4, 4)  # what it returns in training is an output, too
    (out.sum() + aux.sum()).backward()
    assert model.aux.weight.grad.shape[1] == model.first.out_channels == model.norm.num_features


def test_the_model_stays_as_it_is():
    model = auxiliary().train()
    model.norm.eval()
    before = copy.deepcopy(model)
    state = torch.get_rng_state()
    channels = find_channels(model, runs(X))
    assert channels.unused_parameters == []
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name])


def test_a_wrong_width_in_train_mode_is_found():
    """The auxiliary head divides by the number of channels."""
    model = auxiliary(lambda net, y: net.aux(net.norm(y)) / y.shape[1])
    channels = find_channels(model, runs(X))
    assert list(channels.excluded) == ['first']
    assert [group.name for group in channels.groups] == ['second']


def test_random_outputs_of_training_are_protected():
    """They cannot be compared, but what makes them stays."""
    model = auxiliary(lambda net, y: F.dropout(net.aux(net.norm(y)), training=True))
    channels = find_channels(model, runs(X))
    assert not channels.excluded
    assert sorted(group.name for group in channels.groups) == ['first', 'second']
    assert 'aux.weight' in {axis.name for axis in channels.frozen['output of the model']}


def test_a_model_that_does_not_train_with_the_input_is_told():
    def fail(net, y):
        raise RuntimeError('needs targets')

    with (
        pytest.warns(UserWarning, match=r'^aux\.weight took no part in the run'),
        pytest.warns(
            UserWarning, match=r'train mode with this input \(RuntimeError: needs targets'
        ),
    ):
        structure = prune_model(auxiliary(fail), inputs=X, round_to=1)
    assert structure['reached']['params'] <= 0.5


def test_layers_that_never_run_are_told():
    model = auxiliary()
    model.spare = Conv2d(16, 16, 1)
    with pytest.warns(
        UserWarning, match=r'^spare\.weight took no part in the run, in eval mode or'
    ):
        prune_model(model, inputs=X, target=dict(params=0.6), round_to=1)


def test_a_forward_that_runs_them_shows_them():
    model = auxiliary()
    model.spare = Conv2d(16, 4, 1)

    def forward(model):
        return model(X), model.spare(model.first(X).relu())

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        prune_model(model, forward=forward, target=dict(params=0.5), round_to=1)
    forward(model)
    assert model.spare.in_channels == model.first.out_channels < 16
