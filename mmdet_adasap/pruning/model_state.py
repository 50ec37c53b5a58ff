# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model in eval mode, and restore its modes, attributes and buffers afterwards."""

import contextlib
import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from .rebinding import rebind_functions

ForwardFn = Callable[[nn.Module], object]
"""Runs a model on some fixed input and returns its raw outputs."""

CONTAINERS = (list, dict, set, OrderedDict)
"""Types of attributes whose contents are restored; a subclass may not be copied by .copy()."""
MODULE_ATTRIBUTES = vars(nn.Module()).keys() - {'_parameters', '_buffers', '_modules'}
"""Attributes that every module has, of which running a model changes none."""


def check_model(model: object) -> None:
    """Raise ValueError if a model cannot be run, copied and cut.

    Args:
        model (object): What was given as a model.

    Raises:
        ValueError: If it is no module, has no parameters or some without data, is compiled, or has
            parameters that share a part of their memory.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f'model is a {type(model).__name__}, and must be a torch.nn.Module')
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError(f'{type(model).__name__} has no parameters: there is nothing to prune')
    if any(isinstance(p, nn.parameter.UninitializedTensorMixin) for p in parameters):
        raise ValueError(
            f'{type(model).__name__} has lazy layers without weights yet; run it once first'
        )
    if any(p.device.type == 'meta' for p in parameters):
        raise ValueError(
            f'{type(model).__name__} is on the meta device, without weights; load or initialise '
            f'them first'
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(
            f'{type(model).__name__} is compiled by torch.jit, which cannot be cut; prune the '
            f'module that it was made of'
        )

    first, second = _overlapping(model) or (None, None)
    if second is not None:
        raise ValueError(
            f'{first} and {second} overlap in memory without being one parameter, so that cutting '
            f'one would change the other; assign the same nn.Parameter to both, or a copy'
        )


def _overlapping(model: nn.Module) -> tuple[str, str] | None:
    """Return the names of two parameters that share a part of a storage, if there are any."""
    # Sorted by storage and first byte, an overlap is with the one before that reaches furthest.
    places = sorted(
        (p.untyped_storage().data_ptr(), p.storage_offset() * p.element_size(), name, p)
        for name, p in model.named_parameters()
        if p.layout is torch.strided and p.numel()
    )
    last: tuple[int, int, str] | None = None
    for storage, start, name, parameter in places:
        # Place of the last entry; numel() would be wrong for tensors with gaps (strides).
        last_entry = sum(
            (n - 1) * s for n, s in zip(parameter.shape, parameter.stride(), strict=True)
        )
        end = start + (last_entry + 1) * parameter.element_size()
        if last is not None and last[0] == storage and start < last[1]:
            return last[2], name
        if last is None or last[0] != storage or end > last[1]:
            last = storage, end, name
    return None


def check_finite(model: nn.Module) -> None:
    """Raise DivergedError if a parameter holds a NaN or infinity."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        # NaN and infinity survive a sum, so no mask of the size of a weight is needed.
        finite = torch.stack([p.sum().isfinite().cpu() for p in parameters.values()])
    if not finite.all():
        name = list(parameters)[int(finite.int().argmin())]
        raise DivergedError(
            f'{name} is not finite: training has diverged before this pruning event; lower '
            f'the learning rate or rho_max, and go on from an earlier checkpoint'
        )


def copy_model(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model, of which no function refers to the original.

    Raises:
        ValueError: If something in the model cannot be copied.
    """
    memo: dict[int, object] = {}
    try:
        copied = copy.deepcopy(model, memo)
        rebind_functions(copied, memo)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f'{type(model).__name__} cannot be copied with copy.deepcopy, which a trial cut needs '
            f'({reason}); old weight_norm is one reason: use torch.nn.utils.parametrizations'
        ) from error
    return copied


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Set eval mode without gradients; restore modes and random numbers at the end.

    An autocast around this is off inside, since a cut is verified to the rounding of float32.
    """
    devices = {p.device for p in model.parameters() if p.device.type == 'cuda'}
    with contextlib.ExitStack() as stack:
        for kind in {'cpu', *(device.type for device in devices)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(preserve_modes(model))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices))
        model.eval()
        # Some modules override train() and stay in train mode, and dropout there would make the
        # compared runs random.
        for module in model.modules():
            module.training = False
        yield


@contextlib.contextmanager
def preserve_modes(model: nn.Module) -> Iterator[None]:
    """Restore every module's train or eval mode, and what changing it has changed.

    Modules may do more than note the mode: backbones freeze stages, LeViT's attention computes
    what it reads in eval mode, LoRA layers merge their weights.
    """
    mode, trained = model.training, [(p, p.requires_grad) for p in model.parameters()]
    with preserve_attributes(model):
        try:
            yield
        finally:
            model.train(mode)  # undoes what the other mode did to weights
            for parameter, before in trained:
                parameter.requires_grad = before


@contextlib.contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Restore attributes and buffers: some models keep what they compute, others count runs."""
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with preserve_attributes(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


@contextlib.contextmanager
def preserve_attributes(model: nn.Module) -> Iterator[None]:
    """Restore what modules hold besides the values of parameters and buffers.

    Lists, dicts and sets among the attributes get back what they held; what these hold in turn
    is not restored.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    containers = [
        (value, value.copy())
        for found in attributes
        for name, value in found.items()
        if type(value) in CONTAINERS and name not in MODULE_ATTRIBUTES
    ]
    try:
        yield
    finally:
        # In place: other objects may refer to the same list or dict.
        for value, before in containers:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)
        for module, found in zip(modules, attributes, strict=True):
            vars(module).clear()
            vars(module).update(found)


PLAIN = (int, float, str, type(None), torch.dtype, torch.device)
"""Types of most arguments that are no tensors, tested first. isinstance() with Mapping, an
abstract class, is slow, and a trace asks for every argument of every operation."""


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield all tensors in nested containers and mmengine data elements, in a fixed order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, PLAIN):
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, 'all_items'):  # mmengine's BaseDataElement, which is not imported here
        for _, item in value.all_items():
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def output_tensors(outputs: object) -> list[Tensor]:
    """Return the tensors in what a model returned.

    Raises:
        ValueError: If there is none, since no output would be protected, and none compared.
    """
    tensors = list(tensors_in(outputs))
    if not tensors:
        raise ValueError(
            f'forward must return the raw output tensors of the model, in lists, tuples or dicts, '
            f'and returned {type(outputs).__name__} without any'
        )
    return tensors
