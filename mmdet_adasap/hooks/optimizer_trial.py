# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Take an optimizer through masks and a cut on small parameters, before training begins.

Nothing says before the first step what an optimizer keeps, in its state or elsewhere. Without a
trial a training would run for hours up to the cut, and end there.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import OptimizerStateError, one_line
from ..optim import preserve_rng_state
from ..pruning import ChannelGroup, ChannelMasks, Member, check_states, cut, indices_from_masks

LARGEST_AXIS = 160
"""Longest axis of a parameter in the trial. Above 128, from which on most implementations of
Adafactor and those after it factor their moments; short enough for inverse roots of matrices."""
LARGEST_KERNEL = 3
"""The same for the axes of a kernel. Optimizers flatten these or leave them alone."""
STEPS = 12
"""Steps with dense parameters, with masked and with cut ones each. More than the 10 of SOAP from
one refresh of its preconditioners to the next, and than the 5 after which RAdam and Lookahead
begin to do something else."""
LEARNING_RATE = 0.05
"""In place of the run's, which may be 0 in a warm-up, or so high that the trial diverges."""
REMEDY = 'use SGD, Adam or AdamW'
WHY = 'so it keeps what belongs to the dense parameters outside of its state; '


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise an error if an optimizer could not go on after a cut.

    A twin of it steps small parameters of the run's kinds: dense, with masked channels, and cut.
    Neither the optimizer nor its parameters nor random numbers are touched.

    Args:
        optimizer (Optimizer): That of the run.

    Raises:
        OptimizerStateError: If its state, or what it keeps elsewhere, cannot follow.
        ValueError: If it cannot be stepped without further arguments.
    """
    name = f'optim_wrapper.optimizer: {type(optimizer).__name__}'
    with _undisturbed(optimizer):
        try:
            trial = _stepped_trial(optimizer)
        except Exception as error:
            raise ValueError(
                f'{name} cannot be stepped as mmengine does, in a trial on small parameters '
                f'({one_line(error)}); {REMEDY}'
            ) from error
        try:
            fault = trial.find_fault()
        except OptimizerStateError:
            raise
        except Exception as error:
            fault = f'raises {one_line(error)} once channels are removed, {WHY}'
    if fault:
        raise OptimizerStateError(f'{name} {fault}{REMEDY}')


def kept_keys(optimizer: Optimizer) -> set[str]:
    """Return the keys of the state that an optimizer keeps for every parameter it has stepped.

    Args:
        optimizer (Optimizer): That of the run; it is not touched.

    Returns:
        set[str]: The keys; empty if it cannot be stepped, which :func:`check_optimizer` reports.
    """
    with _undisturbed(optimizer):
        try:
            trial = _stepped_trial(optimizer)
        except Exception:
            return set()
    states = [trial.optimizer.state.get(toy, {}) for toy in trial.model.parameters()]
    return set.intersection(*(set(s) if isinstance(s, Mapping) else set() for s in states))


@contextlib.contextmanager
def _undisturbed(optimizer: Optimizer) -> Iterator[None]:
    """Let the block step with gradients, and restore the random generators after it."""
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    with preserve_rng_state(nn.ParameterList(parameters[:1])), torch.enable_grad():
        yield


def _stepped_trial(optimizer: Optimizer) -> _Trial:
    """Return a trial of an optimizer that has stepped once.

    Raises:
        Exception: What a copy of the optimizer raises, if one that is built anew does not step
            either.
    """
    try:
        trial = _Trial(optimizer, _twin)
        trial.step()
    # What it was given beside its defaults is lost in one that is built anew; but one that made
    # its buffers in __init__ cannot step other parameters, and locks or files cannot be copied.
    except Exception as error:
        try:
            trial = _Trial(optimizer, _rebuilt)
            trial.step()
        except Exception:
            raise error from None
    return trial


class _Trial:
    """An optimizer like that of a run, and a module of small parameters that it steps.

    Args:
        optimizer (Optimizer): The real one.
        make (Callable): :func:`_twin` or :func:`_rebuilt`.

    Attributes:
        model (nn.Module): Holds the small parameters.
        optimizer (Optimizer): What ``make`` returned.
    """

    def __init__(self, optimizer: Optimizer, make: Callable) -> None:
        self.model = nn.Module()
        toys, memo = {}, {}
        for alike in _kinds(optimizer):
            toy = _toy(alike[0])
            self.model.register_parameter(f'p{len(toys)}', toy)
            toys[alike[0]] = toy
            memo.update({id(parameter): toy for parameter in (*alike, toy)})
        self.optimizer = make(optimizer, toys, memo)
        # Schedule-free optimizers have modes, as models do, and step in train mode alone.
        if callable(getattr(self.optimizer, 'train', None)):
            self.optimizer.train()
        self._count = 0

    def step(self) -> None:
        """Step once with a made gradient."""
        self._count += 1
        losses = []
        for toy in self.model.parameters():
            toy.grad = None
            real = torch.view_as_real(toy) if toy.is_complex() else toy
            made = torch.arange(real.numel(), dtype=torch.float32, device=toy.device)
            made = torch.sin(0.7 * made + self._count).reshape(real.shape)
            losses.append((real * made.to(real.dtype)).sum())
        torch.autograd.backward(losses)
        self.optimizer.step()

    def find_fault(self) -> str | None:
        """Step, remove a quarter of the channels as a run does, and step on.

        Returns:
            str | None: What goes wrong and why, as a sentence that :data:`REMEDY` ends.
        """
        check_states([self.optimizer])
        groups = []
        for name, toy in self.model.named_parameters():
            for axis, size in enumerate(toy.shape[:2]):
                member = Member(name, axis, np.arange(size)[:, None], axis == 0)
                groups.append(ChannelGroup(len(groups), [member], size))
        kept = [np.arange(group.size) < math.ceil(0.75 * group.size) for group in groups]
        moved_dense = self._moved_by_steps()
        check_states([self.optimizer])
        is_finite = self._is_finite()
        masks = ChannelMasks(self.model, groups)
        masks.remove(kept, [self.optimizer])
        self._moved_by_steps()
        masks.release()
        if is_finite and not self._is_finite():
            return (
                'gives NaN for removed channels, whose weights, gradients and state are 0; set '
                'its eps above 0 if it has one, or '
            )
        keep = indices_from_masks(self.model, groups, kept)
        cut(self.model, keep, {}, [self.optimizer])
        shapes = [toy.shape for toy in self.model.parameters()]
        moved = self._moved_by_steps()
        check_states([self.optimizer])
        if [toy.shape for toy in self.model.parameters()] != shapes:
            return f'gives cut parameters their dense shape again, {WHY}'
        # One that steps a flat copy of all parameters goes on with the dense copy.
        if not any(moved_dense) or any(
            d and not m for d, m in zip(moved_dense, moved, strict=True)
        ):
            return f'does not move cut parameters, {WHY}'
        return None

    def _moved_by_steps(self) -> list[bool]:
        """Take some steps, and return whether any of them has moved each parameter."""
        toys = list(self.model.parameters())
        moved = [False] * len(toys)
        for _ in range(STEPS):
            before = [toy.detach().clone() for toy in toys]
            self.step()
            # Step by step, since those that go by the sign may come back to where they were.
            for i, (old, new) in enumerate(zip(before, toys, strict=True)):
                moved[i] |= old.shape != new.shape or not torch.equal(old, new)
        return moved

    def _is_finite(self) -> bool:
        return all(bool(toy.isfinite().all()) for toy in self.model.parameters())


def _kinds(optimizer: Optimizer) -> list[list[nn.Parameter]]:
    """Return the parameters that an optimizer treats alike, as far as can be told from outside.

    Returns:
        list[list[nn.Parameter]]: Of each kind, the parameter with the longest axes comes first.
    """
    kinds = defaultdict(list)
    for group in optimizer.param_groups:
        # Rates and decays differ from parameter to parameter; what is no number may be a method.
        methods = [
            (key, repr(value))
            for key, value in sorted(group.items())
            if not isinstance(value, float | Tensor) and key not in ('params', 'param_names')
        ]
        for parameter in group['params']:
            kinds[(*methods, parameter.dim(), parameter.dtype)].append(parameter)
    # The shorter one of two axes decides, since a matrix is factored if both are long.
    return [
        sorted(alike, key=lambda p: min(p.shape[:2], default=0), reverse=True)
        for alike in kinds.values()
    ]


def _toy(real: nn.Parameter) -> nn.Parameter:
    """Return a small parameter of the kind of a real one."""
    shape = [min(n, LARGEST_AXIS) for n in real.shape[:2]]
    # A square state would have the shape of a square parameter by chance.
    if len(shape) == 2 and shape[0] == shape[1] > 1:
        shape[1] -= 1
    shape += [min(n, LARGEST_KERNEL) for n in real.shape[2:]]
    values = torch.arange(math.prod(shape), dtype=torch.float32, device=real.device)
    # Small, so that even the first steps of an optimizer that finds its rate itself are seen.
    return nn.Parameter((1e-3 * torch.cos(values) + 2e-3).reshape(shape).to(real.dtype))


def _twin(
    optimizer: Optimizer, toys: Mapping[nn.Parameter, nn.Parameter], memo: dict
) -> Optimizer:
    """Return an optimizer that is like another one, for other parameters.

    It is made by hand: a class may want arguments that ``defaults`` do not name, and copying an
    optimizer as a whole would copy the real parameters.

    Args:
        optimizer (Optimizer): The real one, or one that it wraps.
        toys (Mapping[nn.Parameter, nn.Parameter]): Parameter of it to that of the twin.
        memo (dict): What ``copy.deepcopy`` is to put in the place of objects, by their id.
    """
    kind = type(optimizer)
    twin = memo[id(optimizer)] = object.__new__(kind)
    memo[id(optimizer.state)] = state = defaultdict(dict)
    for owner, value in optimizer.state.items():
        if not isinstance(owner, Tensor):
            state[owner] = copy.deepcopy(value, memo)
        elif owner in toys:
            toy = toys[owner]
            state[toy] = {key: _part(entry, owner, toy, memo) for key, entry in value.items()}
    if id(optimizer.param_groups) not in memo:
        groups = [_small_group(group, toys, memo) for group in optimizer.param_groups]
        memo[id(optimizer.param_groups)] = [group for group in groups if group['params']]
    for key, value in vars(optimizer).items():
        # Schedulers put a function in the place of step(), which counts and then steps the real
        # one; and functions that are registered to be called with a step may do anything.
        if callable(value) and hasattr(kind, key):
            continue
        if key.startswith('_optimizer_') and isinstance(value, Mapping):
            vars(twin)[key] = type(value)()
        elif isinstance(value, Optimizer):
            vars(twin)[key] = memo.get(id(value)) or _twin(value, toys, memo)
        else:
            vars(twin)[key] = copy.deepcopy(value, memo)
    return twin


def _rebuilt(
    optimizer: Optimizer, toys: Mapping[nn.Parameter, nn.Parameter], memo: dict
) -> Optimizer:
    """Return an optimizer of the same class, built anew; arguments as for :func:`_twin`."""
    groups = [_small_group(group, toys, memo) for group in optimizer.param_groups]
    # AdamW's defaults hold values beside these, which its own __init__ would not take.
    known = inspect.signature(type(optimizer)).parameters
    arguments = {key: value for key, value in optimizer.defaults.items() if key in known}
    return type(optimizer)([group for group in groups if group['params']], **arguments)


def _small_group(group: dict, toys: Mapping[nn.Parameter, nn.Parameter], memo: dict) -> dict:
    """Return a parameter group with the settings of another one."""
    small = {key: copy.deepcopy(value, memo) for key, value in group.items() if key != 'params'}
    rate = small.get('lr')
    if isinstance(rate, Tensor):
        small['lr'] = torch.full_like(rate, LEARNING_RATE)
    elif isinstance(rate, int | float):
        small['lr'] = LEARNING_RATE
    return {**small, 'params': [toys[p] for p in group['params'] if p in toys]}


def _part(value: object, owner: Tensor, toy: Tensor, memo: dict) -> object:
    """Return the part of a state that belongs to a small parameter."""
    if isinstance(value, Tensor) and value.shape == owner.shape:
        return value[tuple(slice(n) for n in toy.shape)].clone()
    return copy.deepcopy(value, memo)
