# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which optimizers can follow a cut is known before the first step."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import NAdam, Optimizer

from _utils.adasap_runs import assert_same_weights, kill_after, train
from _utils.toy import settings
from mmdet_adasap.errors import OptimizerStateError
from mmdet_adasap.hooks.optimizer_trial import check_optimizer, kept_keys


class Toy(Optimizer):
    """Gradient descent, and what a subclass keeps of it."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, dict(lr=lr))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    self.keep(p, self.state[p])
                    p.sub_(group['lr'] * p.grad)

    def keep(self, p, state): ...


class Momentum(Toy):
    def keep(self, p, state):
        state['momentum'] = state.get('momentum', 0) + p.grad


class CountsUnderAName(Toy):
    """As MADGRAD does."""

    def __init__(self, params):
        super().__init__(params)
        self.state['k'] = torch.tensor([0])

    def keep(self, p, state):
        self.state['k'] += 1
        state['mean'] = p.grad.clone()


class WantsAnArgument(Momentum):
    def __init__(self, params, beta):
        super().__init__(params)
        self.beta = beta


class HasHyperparameters(Toy):
    def keep(self, p, state):
        state.update(betas=[0.9, 0.99], name='a', on=True, count=np.float32(1), none=None)


class SlowWeights(Toy):
    """As Lookahead in one class: every fifth step goes back half of the way."""

    def keep(self, p, state):
        state['step'] = state.get('step', 0) + 1
        slow = state.setdefault('slow', p.clone())
        if state['step'] % 5 == 0:
            p.copy_(slow.lerp_(p, 0.5))


class AddsNoise(Toy):
    def keep(self, p, state):
        p.add_(torch.randn_like(p) * float(np.random.rand()) * 1e-6)


class ScheduleFree(Momentum):
    """Steps in train mode alone."""

    training = False

    def train(self):
        self.training = True

    def keep(self, p, state):
        assert self.training


class SignOnly(Toy):
    """Its steps have one size, so that it often comes back to where it was."""

    def keep(self, p, state):
        p.grad.sign_()


class Queue(Toy):
    def keep(self, p, state):
        state.setdefault('queue', []).append(p.grad.clone())


class ByBeta(Toy):
    def keep(self, p, state):
        state['buffer'] = {0.9: p.grad.clone()}


class Factored(Toy):
    """As CAME: from axes of 128 on."""

    def keep(self, p, state):
        if p.dim() > 1 and min(p.shape[:2]) >= 128:
            state['row'] = p.grad.square().flatten(1).mean(1)


class Preconditioned(Toy):
    def keep(self, p, state):
        state['gg'] = p.grad.flatten(1) @ p.grad.flatten(1).T if p.dim() > 1 else p.grad.square()


class Late(Toy):
    """Makes its preconditioner in the tenth step, as SOAP refreshes it."""

    def keep(self, p, state):
        state['step'] = state.get('step', 0) + 1
        if state['step'] == 10 and p.dim() > 1:
            state['eigenvectors'] = torch.eye(len(p))


class Projector(Toy):
    def keep(self, p, state):
        state['projector'] = nn.Identity()


class FlatInState(Toy):
    def keep(self, p, state):
        params = self.param_groups[0]['params']
        self.state['flat'] = torch.cat([q.flatten() for q in params])


class InAttribute(Toy):
    def __init__(self, params):
        super().__init__(params)
        self.means = {}

    def keep(self, p, state):
        self.means[p] = self.means.get(p, 0) + p.grad


class InGroup(Toy):
    def keep(self, p, state):
        means = self.param_groups[0].setdefault('means', {})
        means[id(p)] = means.get(id(p), 0) + p.grad


class KeepsShape(Toy):
    def keep(self, p, state):
        p.grad = p.grad.reshape(state.setdefault('shape', tuple(p.shape)))


class Flattened(Toy):
    """Steps one flat parameter, of which the model's are views."""

    def __init__(self, params):
        super().__init__(params)
        self.flat = None

    @torch.no_grad()
    def step(self):
        params = self.param_groups[0]['params']
        if self.flat is None:
            self.flat = torch.cat([p.flatten() for p in params])
            self.sizes, start = [p.numel() for p in params], 0
            for p in params:
                p.data = self.flat[start : start + p.numel()].view(p.shape)
                start += p.numel()
        grads = torch.cat([p.grad.flatten() for p in params])
        self.flat[: len(grads)] -= 0.1 * grads


class Wrapping(Toy):
    """Leaves the step to an optimizer that it holds, and whose state nobody cuts."""

    def __init__(self, params):
        super().__init__(params)
        self.inner = Momentum(self.param_groups)

    def step(self):
        self.inner.step()


class NotCopied(Momentum):
    """Holds what cannot be copied, as a lock or a file."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.items = (item for item in ())


class NotCopiedNorBuilt(NotCopied):
    def __init__(self, params, name):
        super().__init__(params)


class MadeInInit(Toy):
    """Makes its buffers when it is built."""

    def __init__(self, params):
        super().__init__(params)
        self.means = {p: torch.zeros_like(p) for p in self.param_groups[0]['params']}

    def keep(self, p, state):
        self.means[p] += p.grad


FOLLOW = [
    Momentum,
    CountsUnderAName,
    lambda params: WantsAnArgument(params, beta=0.9),
    HasHyperparameters,
    SlowWeights,
    AddsNoise,
    ScheduleFree,
    NotCopied,
    SignOnly,
    lambda params: torch.optim.Adam(params, lr=torch.tensor(0.0)),
    lambda params: torch.optim.SGD(params, lr=0.0, momentum=0.9),
    lambda params: torch.optim.SGD(params, lr=1e12, momentum=0.9, weight_decay=0.1),
]
REFUSED = {
    Queue: "keeps 'queue', an object of type list, for a parameter of shape",
    ByBeta: "keeps 'buffer', an object of type dict",
    Factored: "keeps 'row', a tensor of shape",
    Preconditioned: "keeps 'gg', a tensor of shape",
    Late: "keeps 'eigenvectors', a tensor of shape",
    Projector: "keeps 'projector', an object of type Identity",
    FlatInState: "keeps 'flat', a tensor of shape .* for no single parameter",
    InAttribute: 'raises RuntimeError: The size of tensor',
    MadeInInit: 'raises RuntimeError: The size of tensor',
    InGroup: 'raises RuntimeError: The size of tensor',
    KeepsShape: 'raises RuntimeError: shape',
    Flattened: 'does not move cut parameters|raises',
    Wrapping: 'raises RuntimeError: The size of tensor',
}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 140, 3),
        nn.BatchNorm2d(140),
        nn.PReLU(),
        nn.Conv2d(140, 130, 1),
        nn.Linear(3, 3),
    )


@pytest.mark.parametrize('make', FOLLOW)
def test_those_that_can_follow(make):
    check_optimizer(make(model().parameters()))


@pytest.mark.parametrize('make', REFUSED)
def test_those_that_cannot(make):
    message = rf'^optim_wrapper.optimizer: {make.__name__} ({REFUSED[make]}).*; use SGD'
    with pytest.raises(OptimizerStateError, match=message):
        check_optimizer(make(model().parameters()))


def test_weights_that_become_nan_where_a_channel_is_removed():
    with pytest.raises(OptimizerStateError, match=r': Adam gives NaN for removed channels'):
        check_optimizer(torch.optim.Adam(model().parameters(), eps=0))
    with pytest.raises(OptimizerStateError, match=r'^optim_wrapper.optimizer: AdamW gives NaN'):
        check_optimizer(torch.optim.AdamW(model().parameters(), eps=0, amsgrad=True))


def test_optimizer_that_cannot_be_tried():
    optimizer = NotCopiedNorBuilt(model().parameters(), name='a')
    with pytest.raises(ValueError, match=r': NotCopiedNorBuilt cannot be stepped as .*generator'):
        check_optimizer(optimizer)


def test_nothing_of_the_run_is_touched():
    """Not the weights, the state, the random numbers, nor what a scheduler put over step()."""
    net = model()
    optimizer = AddsNoise(net.parameters())
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # replaces optimizer.step
    optimizer.register_step_pre_hook(lambda *_: pytest.fail('a hook of the run was called'))
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict(), set(vars(optimizer))))
    random = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_optimizer(optimizer)
    assert kept_keys(optimizer) == set()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[0][name])
    assert optimizer.state_dict() == before[1]
    assert set(vars(optimizer)) == before[2]
    assert torch.equal(torch.get_rng_state(), random[0])
    assert (np.random.get_state()[1] == random[1]).all()
    assert all((p.grad == 1).all() for p in net.parameters())


def test_settings_of_groups_decide():
    """One group that is treated otherwise is enough."""

    class ByGroup(Toy):
        def keep(self, p, state):
            if self.param_groups[-1].get('factored'):
                state['row'] = p.grad.sum(0)

    net = model()
    groups = [dict(params=[p]) for p in net.parameters()]
    check_optimizer(ByGroup(groups))
    groups[-2]['factored'] = groups[-1]['factored'] = True
    with pytest.raises(OptimizerStateError, match="keeps 'row'"):
        check_optimizer(ByGroup(groups))


def of_torch() -> list[type[Optimizer]]:
    """Those that mmengine can step; Muon takes matrices alone, and SparseAdam sparse gradients."""
    left_out = ('Optimizer', 'LBFGS', 'SparseAdam', 'Muon', 'Adafactor')
    found = [value for name, value in vars(torch.optim).items() if name not in left_out]
    return [v for v in found if inspect.isclass(v) and issubclass(v, Optimizer)]


@pytest.mark.parametrize('kind', of_torch())
def test_those_of_torch_can_follow(kind):
    check_optimizer(kind(model().parameters(), lr=0.01))


def test_muon_and_adafactor_of_torch():
    net = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Linear(6, 6, bias=False))
    muon = getattr(torch.optim, 'Muon', None)
    if muon is not None:  # newer than the oldest torch that is supported
        check_optimizer(muon(net.parameters()))
    if hasattr(torch.optim, 'Adafactor'):
        with pytest.raises(OptimizerStateError, match="Adafactor keeps 'row_var'"):
            check_optimizer(torch.optim.Adafactor(net.parameters()))


@pytest.mark.parametrize(
    'kind',
    [CountsUnderAName, *(pytest.param(k, marks=pytest.mark.long) for k in (SlowWeights, NAdam))],
)
def test_run_through_the_cut_and_resumed(tmp_path, kind):
    def cfg(name):
        made = settings(tmp_path / name, hook=dict(perturbation=None, finetune=None))
        made['optim_wrapper']['optimizer'] = dict(type=kind)
        return made

    whole = train(cfg('whole'))
    for killed_at in (14, 25):  # while channels are masked, and when they are cut off
        kill_after(cfg(f'at_{killed_at}'), killed_at)
        resumed = train(cfg(f'at_{killed_at}') | dict(resume=True))
        assert_same_weights(resumed.model, whole.model)


@pytest.mark.parametrize('kind', [Queue, InAttribute, Flattened])
def test_run_is_refused_before_its_first_step(tmp_path, kind):
    cfg = settings(tmp_path)
    cfg['optim_wrapper']['optimizer'] = dict(type=kind)
    with pytest.raises(OptimizerStateError, match=rf'^optim_wrapper.optimizer: {kind.__name__} '):
        train(cfg)
    assert not list(tmp_path.glob('*.pth'))
