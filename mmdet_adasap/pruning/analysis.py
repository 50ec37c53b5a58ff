# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the channels of a model that can be removed, and prove it by a trial cut."""

from collections.abc import Callable, Collection

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
"""Kinds of modules that are left whole, one after the other, before a model is refused."""


def find_channels(
    model: nn.Module, forward: ForwardFn, report: Callable[[str], None] | None = None
) -> PrunableChannels:
    """Trace a model, cut half of every group of a copy, and compare with the masked model.

    Where they differ, the module that differs first is left whole, with all others of its class
    (unless that is a plain layer of PyTorch), and the model is traced again, until they agree;
    where that does not help, the module around it. All this is done with a copy in which scales
    and weights that are zero are not, so that nothing hides behind them.

    Args:
        model (nn.Module): The dense model.
        forward (Callable): Runs a model on a real input and returns its raw outputs.
        report (Callable, optional): Called with a line for every module that is left whole.

    Returns:
        Channels: Groups whose cut is proven. ``excluded`` names the modules left whole, and why.

    Raises:
        EquivalenceError: If no part of the model can be left whole so that the rest is right.
    """
    excluded: dict[str, str] = {}
    dry = True
    model = _awake(model)
    for _ in range(MAX_TRIALS):
        channels = trace_channels(model, forward, excluded, dry)
        kept = _half(channels)
        keep = indices_from_masks(model, channels.groups, kept)
        try:
            verify_cut(model, keep, forward, attribute_counts(model, channels, keep, kept))
        except EquivalenceError as error:
            if dry:  # numbers may have left in a way that is not seen
                dry = False
                continue
            alike = _alike(model, error.module, excluded)
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
def _awake(model: nn.Module) -> nn.Module:
    """A copy without zeros that a wrong cut could hide behind.

    Scales and shifts of nearly 0 (the last norm of a residual branch) and weights that are 0 as
    a whole (offsets of a deformable convolution) hold small numbers there.
    """
    model = copy_model(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.is_floating_point() or not parameter.numel():
            continue
        vector = parameter.numel() == max(parameter.shape, default=1)
        if not vector and parameter.any():
            continue
        other = 0.1 + 0.2 * torch.rand(parameter.shape, generator=generator)
        if not vector:
            other /= parameter[0].numel()
        parameter.data = parameter.data.where(parameter.abs() > 1e-3, other.to(parameter))
    return model


def _alike(model: nn.Module, name: str, excluded: Collection[str]) -> list[str]:
    """The modules to leave whole when one went wrong; none if all around it are so already."""
    modules = dict(model.named_modules())
    while name and (name in excluded or _does_nothing_of_its_own(modules[name])):
        name = name.rpartition('.')[0]
    if name in excluded:
        return []
    kind = type(modules[name])
    if kind.__module__.startswith('torch.nn.'):
        return [name]
    return [
        name,
        *(n for n, m in modules.items() if type(m) is kind and n not in {name, *excluded}),
    ]


def _does_nothing_of_its_own(module: nn.Module) -> bool:
    """A dropout, an activation, a container: what is wrong there is wrong around it."""
    bases = [base for base in type(module).__mro__ if base is not nn.Module]
    plain = any(base.__module__.startswith('torch.nn.') for base in bases)
    if isinstance(module, nn.Unflatten):  # it holds a size
        return False
    return plain and not any(True for _ in module.parameters(recurse=False))


def attribute_counts(
    model: nn.Module, channels: PrunableChannels, keep: Keep, kept: list[np.ndarray]
) -> dict[str, dict[str, int]]:
    """All attributes that change with a cut: those of layers, and those met by the trace."""
    counts = channels.traced_attributes(kept)
    for module, attributes in channel_counts(model, keep).items():
        counts[module] = {**counts.get(module, {}), **attributes}
    return counts


def _half(channels: PrunableChannels) -> list[np.ndarray]:
    """Half of every group by chance, so that no regularity hides a wrong tie."""
    rng = np.random.default_rng(0)
    return [rng.permutation(group.size) < (group.size + 1) // 2 for group in channels.groups]
