# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Models whose forward is wrapped on one module."""

import functools
import types
import weakref

import pytest
import torch
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from _utils.nets import Net, assert_cuts, chain, randomise, runs
from mmdet_adasap.apis import prune_model
from mmdet_adasap.pruning.analysis import find_channels
from mmdet_adasap.pruning.model_state import copy_model

IMAGE = 2, 3, 8, 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def network() -> Net:
    return Net(
        lambda n, x: n.head(n.block(n.first(x))),
        first=nn.Conv2d(3, 8, 1),
        block=Block(),
        head=nn.Conv2d(8, 2, 1),
    )


def closure(module: nn.Module) -> None:
    forward = module.forward

    def wrapper(*args):
        return forward(*args)

    module.forward = wrapper


def over_the_module(module: nn.Module) -> None:
    module.forward = lambda x: type(module).forward(module, x)


def decorated(module: nn.Module) -> None:
    @functools.wraps(module.forward)
    def wrapper(*args):
        return wrapper.__wrapped__(*args)

    module.forward = wrapper


def default_value(module: nn.Module) -> None:
    def wrapper(x, forward=module.forward, *, other=[module]):  # noqa: B006
        return forward(x) if other[0].training else other[0].b(torch.relu(other[0].a(x)))

    module.forward = wrapper


def partial(module: nn.Module) -> None:
    module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)


def partial_of_a_closure(module: nn.Module) -> None:
    closure(module)
    module.forward = functools.partial(module.forward)


def bound_method(module: nn.Module) -> None:
    forward = module.forward
    module.forward = types.MethodType(lambda self, x: forward(x), module)


def weights(module: nn.Module) -> None:
    a, b = module.a.weight, module.b.weight
    module.forward = lambda x: nn.functional.conv2d(nn.functional.conv2d(x, a), b)


def weak_reference(module: nn.Module) -> None:
    module.self_reference = reference = weakref.ref(module)
    module.forward = lambda x: module.self_reference().b(torch.relu(reference().a(x)))


def weak_method(module: nn.Module) -> None:
    forward = weakref.WeakMethod(types.MethodType(type(module).forward, module))
    module.forward = lambda x: forward()(x)


class Counter:
    """A callable object."""

    def __init__(self, forward) -> None:
        self.forward, self.count = [forward], 0

    def __call__(self, *args):
        self.count += 1
        return self.forward[0](*args)


def callable_object(module: nn.Module) -> None:
    closure(module)
    module.forward = Counter(module.forward)


def callable_object_in_a_closure(module: nn.Module) -> None:
    counter = Counter(module.forward)
    module.forward = lambda *args: counter(*args)


def twice(module: nn.Module) -> None:
    turn_on_activation_checkpointing(Net(None, m=module), 'm')
    closure(module)


def hook(module: nn.Module) -> None:
    module.a.register_forward_hook(lambda m, args, out: out + module.b.bias[:6, None, None])


def by_mmengine(module: nn.Module) -> None:
    turn_on_activation_checkpointing(Net(None, m=module), ['m', 'm.a', 'm.b'])


WRAPPERS = (
    *(by_mmengine, closure, over_the_module, decorated, default_value, partial),
    *(partial_of_a_closure, bound_method, weights, weak_reference, weak_method),
    *(callable_object, callable_object_in_a_closure, twice, hook),
)


@pytest.mark.parametrize('wrap', WRAPPERS)
@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.filterwarnings('ignore:None of the inputs have requires_grad')
def test_a_copy_runs_its_own_modules(wrap):
    torch.manual_seed(0)
    model, x = randomise(network()), torch.randn(IMAGE)
    wrap(model.block)
    before = model(x)
    copied = copy_model(model)
    with torch.no_grad():
        for parameter in model.block.parameters():
            parameter.zero_()
    assert torch.equal(copied(x), before)


@pytest.mark.parametrize('wrap', [w for w in WRAPPERS if w is not hook])  # that ties channels
@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.filterwarnings('ignore:None of the inputs have requires_grad')
def test_wrapped_modules_are_followed(wrap):
    torch.manual_seed(0)
    model, x = randomise(network()), torch.randn(IMAGE)
    wrap(model.block)
    lines = []
    channels = find_channels(model, runs(x), lines.append)
    assert not lines
    assert sorted(channels.group_sizes.tolist()) == [6, 8, 8]
    assert_cuts(model, x, channels)


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
@pytest.mark.filterwarnings('ignore:None of the inputs have requires_grad')
def test_a_checkpointed_model_is_cut_and_trained():
    torch.manual_seed(0)
    model, x = randomise(network()), torch.randn(IMAGE)
    by_mmengine(model.block)
    structure = prune_model(model, inputs=x, target=dict(params=0.5), round_to=1)
    assert model.block.a.weight.shape[0] == len(structure['keep']['block.a.weight'][0]) < 6
    model.train()(x).sum().backward()
    assert model.block.a.weight.grad.shape == model.block.a.weight.shape
    assert model.block.a.weight.grad.any()


def test_what_does_not_lead_to_the_model_is_shared():
    model, other = chain(), nn.Linear(3, 3)
    model.run_other = lambda x: other(x)
    model.constants = [torch.relu, len]
    copied = copy_model(model)
    assert copied.run_other is model.run_other
    assert copied.run is model.run
    assert copied.constants == model.constants
    assert copied.constants is not model.constants


def test_a_function_that_refers_to_itself_and_to_nothing_yet():
    model = chain()

    def again(times):
        return again(times - 1) if times else (model.fc, [later])

    model.again = again
    model.also = again
    copied = copy_model(model)
    assert copied.again is copied.also
    later = 3
    assert model.again(2) == (model.fc, [3])
    fc = copied.again.__closure__[again.__code__.co_freevars.index('model')].cell_contents.fc
    assert fc is copied.fc
    assert copied.again.__name__ == 'again'
