# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the channels of a model that can be removed, and prove it by a trial cut."""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from torch import nn

from ..errors import EquivalenceError
from .equivalence import verify_cut
from .groups import PrunableChannels
from .model_state import ForwardFn, copy_model
from .slicing import channel_counts
from .structure import Keep, indices_from_masks
from .tracing import trace_channels

MAX_TRIALS = 20
"""Trial cuts before a model is refused; each excludes another kind of module. A limit of our own,
so that a model of which nothing is understood ends with an error and not after hours."""


def find_channels(
    model: nn.Module, forward: ForwardFn, report: Callable[[str], None] | None = None
) -> PrunableChannels:
    """Trace a model, cut half of every group of a copy, and compare with the masked model.

    Where they differ, the module that differs first is excluded, with all others of its class
    (unless that is a plain layer of PyTorch). Then the model is traced again, until they agree.
    Where that does not help, all modules inside it are excluded, too, and then the module around
    it. All this is done with a copy in
    which scales and weights that were zero are small numbers, so that no error hides behind them.

    Args:
        model (nn.Module): The dense model.
        forward (Callable): Runs a model on a real input and returns its raw outputs.
        report (Callable, optional): Called with a line for every kind of module that is excluded.

    Returns:
        PrunableChannels: Groups whose cut is proven. ``excluded`` maps modules that no channel is
        taken from to the reason.

    Raises:
        EquivalenceError: If the cut stays wrong whatever is excluded.
    """
    excluded: dict[str, str] = {}
    shape_only = True
    model = _copy_without_zeros(model)
    for _ in range(MAX_TRIALS):
        channels = trace_channels(model, forward, excluded, shape_only)
        kept = _random_half(channels)
        keep = indices_from_masks(model, channels.groups, kept)
        try:
            verify_cut(model, keep, forward, attribute_counts(model, channels, keep, kept))
        except EquivalenceError as error:
            if shape_only:
                # A placeholder may have reached Python unnoticed and changed what the model
                # does. Before a module is blamed, the trace is repeated with all arithmetic.
                shape_only = False
                continue
            alike = _modules_to_exclude(model, error.module, excluded)
            if not alike:
                raise EquivalenceError(f'this model cannot be pruned yet: {error}', '') from error
            excluded.update(dict.fromkeys(alike, str(error)))
            if report is not None:
                names = ', '.join(name or 'the model' for name in alike[:3])
                more = f' and {len(alike) - 3} more' if len(alike) > 3 else ''
                report(f'{names}{more} left whole: {error}')
        else:
            channels.excluded = excluded
            return channels
    raise EquivalenceError(
        f'this model cannot be pruned yet: {MAX_TRIALS} kinds of its modules went wrong'
    )


@torch.no_grad()
def _copy_without_zeros(model: nn.Module) -> nn.Module:
    """Copy a model without the zeros that a wrong cut could hide behind.

    Scales and shifts of nearly 0 (the last norm of a residual branch) and weights that are 0 as
    a whole (offsets of a deformable convolution) hold small numbers in the copy.
    """
    model = copy_model(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.is_floating_point() or not parameter.numel():
            continue
        vector = parameter.numel() == max(parameter.shape, default=1)
        if not vector and parameter.any():
            continue
        # 0.1 to 0.3, an own choice: far above the rounding of float32, and all different, so
        # that channels cannot stand in for each other.
        other = 0.1 + 0.2 * torch.rand(parameter.shape, generator=generator)
        if not vector:
            other /= parameter[0].numel()  # outputs stay small whatever the number of inputs
        parameter.data = parameter.data.where(parameter.abs() > 1e-3, other.to(parameter))
    return model


def _modules_to_exclude(model: nn.Module, name: str, excluded: Collection[str]) -> list[str]:
    """Return the modules to exclude when one went wrong; none if all around it are already.

    A module that is excluded and still wrong takes in all modules inside it. Then the one around
    it is next.
    """
    modules = dict(model.named_modules())
    while name:
        if not (name in excluded or _is_stateless(modules[name])):
            return [n for n in _alike(modules, name) if n not in excluded]
        inside = [
            n
            for around in (_alike(modules, name) if name in excluded else ())
            for n in modules
            if n.startswith(f'{around}.') and n not in excluded
        ]
        if inside:
            return inside
        name = name.rpartition('.')[0]
    return [] if name in excluded else [name]


def _alike(modules: Mapping[str, nn.Module], name: str) -> list[str]:
    """Return a module and all others of its class, unless that is a layer of PyTorch."""
    kind = type(modules[name])
    # One Linear that is wrong says nothing of the others; one block of a backbone does.
    if kind.__module__.startswith('torch.nn.'):
        return [name]
    return [name, *(n for n, m in modules.items() if type(m) is kind and n != name)]


def _is_stateless(module: nn.Module) -> bool:
    """Return whether a module is a dropout, an activation or a container of PyTorch.

    What goes wrong in one was passed to it, so the module around it is to blame. A subclass with
    a forward of its own is none: what it does is its own.
    """
    if isinstance(module, nn.Unflatten):  # it has no parameters, but a size that a cut breaks
        return False
    defined_by = next(base for base in type(module).__mro__ if 'forward' in vars(base))
    plain = defined_by.__module__.startswith('torch.nn.') and 'forward' not in vars(module)
    return plain and not any(True for _ in module.parameters(recurse=False))


def attribute_counts(
    model: nn.Module, channels: PrunableChannels, keep: Keep, kept: list[np.ndarray]
) -> dict[str, dict[str, int]]:
    """Return all attributes that change with a cut, of layers and of other modules.

    Args:
        model (nn.Module): The model before the cut.
        channels (PrunableChannels): Its channels.
        keep (dict): Tensor name to axis to kept indices.
        kept (list[np.ndarray]): The same as masks, bool of shape ``[size]`` for each group.

    Returns:
        dict[str, dict[str, int]]: Module name to attribute to its value after the cut.
    """
    counts = channels.traced_attributes(kept)
    for module, attributes in channel_counts(model, keep).items():
        counts[module] = {**counts.get(module, {}), **attributes}
    return counts


def _random_half(channels: PrunableChannels) -> list[np.ndarray]:
    """Keep a random half of every group, since a regular one may hide a wrong tie."""
    rng = np.random.default_rng(0)
    return [rng.permutation(group.size) < (group.size + 1) // 2 for group in channels.groups]
