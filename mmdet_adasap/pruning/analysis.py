# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the channels of a model that can be removed, and prove it by a trial cut."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..errors import EquivalenceError, listed, one_line
from .equivalence import raw_outputs, verify_cut
from .groups import ChannelGroup, PrunableChannels
from .model_state import ForwardFn, copy_model
from .slicing import channel_counts, cut
from .structure import Keep, indices_from_masks
from .tracing import trace_channels
from .training_pass import unused_weights, with_training_pass
from .trial_cuts import trial_cuts

MAX_TRIALS = 50
"""Searches for what goes wrong before a model is refused; each leaves another kind of channels
whole. A limit of our own, so that a model of which nothing is understood ends with an error and
not after hours."""


def find_channels(
    model: nn.Module, forward: ForwardFn, report: Callable[[str], None] | None = None
) -> PrunableChannels:
    """Trace a model, cut a share of every group of a copy, and compare with the masked model.

    No two groups lose the same share, see :mod:`~mmdet_adasap.pruning.trial_cuts`. Where the
    models differ, the group to blame is searched for by bisection and left whole, and so are
    those in the same place of other modules of its kind, if they fail as well. All this is done
    with a copy in which scales and weights that were zero are small numbers, so that no error
    hides behind them. If weights take no part in the run, the model runs in train mode as well.

    Args:
        model (nn.Module): The dense model.
        forward (Callable): Runs a model on a real input and returns its raw outputs.
        report (Callable, optional): Called with a line for every kind of layer left whole.

    Returns:
        PrunableChannels: Groups whose cut is proven. ``excluded`` maps layers that keep their
        output channels to the reason.

    Raises:
        EquivalenceError: If the cut stays wrong whatever is left whole.
    """
    model = _copy_without_zeros(model)
    channels, forward = _trace_both_modes(model, forward)
    shape_only = True
    for _ in range(MAX_TRIALS):
        trials = [
            _Trial(model, channels, forward, kept) for kept in trial_cuts(model, channels.groups)
        ]
        trial, error = next(((t, e) for t in trials if (e := t.error())), (None, None))
        if error is None:
            return channels
        if shape_only:
            # A placeholder may have reached Python unnoticed and changed what the model does.
            # Before a group is blamed, the trace is repeated with all arithmetic.
            shape_only = False
            channels = trace_channels(model, forward, shape_only=False)
            continue
        wrong, error = trial.wrong_groups(error)
        names = [channels.groups[g].name for g in wrong]
        channels = channels.leave_whole(
            {g: f'{error}' if g == wrong[0] else f'as {names[0]}: {error}' for g in wrong}
        )
        if report is not None:
            report(f'{listed(names, 3)} left whole: {error}')
    raise EquivalenceError(
        f'this model cannot be pruned yet: {MAX_TRIALS} kinds of its layers went wrong'
    )


def _trace_both_modes(model: nn.Module, forward: ForwardFn) -> tuple[PrunableChannels, ForwardFn]:
    """Trace a model, in train mode too if weights take no part in eval mode.

    Returns:
        tuple[PrunableChannels, Callable]: The channels, and the function that was traced.
    """
    channels = trace_channels(model, forward)
    unused = unused_weights(model, channels)
    if not unused:
        return channels, forward
    try:
        both = with_training_pass(model, forward)
        return trace_channels(model, both), both
    except Exception as error:  # whatever the model raises
        warnings.warn(
            f'{type(model).__name__} does not run in train mode with this input '
            f'({one_line(error)}), so it is not known which channels {listed(unused, 3)} '
            f'read; give an input that it trains with',
            stacklevel=2,
        )
    return channels, forward


@dataclass
class _Trial:
    """A trial cut of a model.

    Args:
        model (nn.Module): The dense model, left as it is.
        channels (PrunableChannels): Its channels.
        forward (Callable): Runs it and returns its raw outputs.
        kept (list[np.ndarray]): bool of shape ``[size]`` for each group.
    """

    model: nn.Module
    channels: PrunableChannels
    forward: ForwardFn
    kept: list[np.ndarray]

    def error(self, groups: Collection[int] | None = None) -> EquivalenceError | None:
        """Cut some groups (all by default), and return what is wrong; None if nothing is."""
        try:
            verify_cut(self.model, *self._cut_of(groups))
        except EquivalenceError as error:
            return error
        return None

    def _cut_of(self, groups: Collection[int] | None) -> tuple:
        """Return what :func:`verify_cut` needs besides the model to cut some groups."""
        kept = self.kept
        if groups is not None:
            kept = [k if g in groups else np.ones_like(k) for g, k in enumerate(kept)]
        keep = indices_from_masks(self.model, self.channels.groups, kept)
        return keep, self.forward, attribute_counts(self.model, self.channels, keep, kept)

    def _is_wrong(self, groups: Collection[int], like: EquivalenceError) -> bool:
        """Return whether cutting some groups goes wrong.

        Args:
            groups (Collection[int]): Indices of the groups.
            like (EquivalenceError): What goes wrong when more are cut.
        """
        if like.__cause__ is not None:
            # The cut model did not run. To see that again takes a part of its run, and neither
            # the masked model nor fingerprints.
            keep, forward, attrs = self._cut_of(groups)
            slim = copy_model(self.model)
            cut(slim, keep, attrs)
            try:
                raw_outputs(slim, forward)
            except Exception:  # whatever the model raises
                return True
        return self.error(groups) is not None

    def wrong_groups(self, error: EquivalenceError) -> tuple[list[int], EquivalenceError]:
        """Return the first group whose cut goes wrong, and those like it that do.

        Args:
            error (EquivalenceError): What went wrong when all were cut.

        Returns:
            tuple[list[int], EquivalenceError]: The groups, and what goes wrong with the first.

        Raises:
            EquivalenceError: If the model cannot even be compared with a copy of itself.
        """
        nothing_cut = self.error([])
        if nothing_cut is not None:
            raise EquivalenceError(f'this model cannot be pruned yet: {nothing_cut}')
        # The first `right` groups can be cut, and the first `wrong` cannot: the two close in on
        # one group whose cut makes the difference.
        right, wrong = 0, len(self.kept)
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if self._is_wrong(range(middle), error):
                wrong = middle
            else:
                right = middle
        error = self.error(range(wrong)) or error
        alike = _groups_alike(self.model, self.channels.groups, self.channels.groups[right])
        return [right, *(g for g in alike if self._is_wrong([g], error))], error


def _groups_alike(model: nn.Module, groups: list[ChannelGroup], group: ChannelGroup) -> list[int]:
    """Return groups whose outputs are in the same place of other modules of the same class.

    What goes wrong in one block of a backbone is likely to go wrong in the others.
    """
    modules = dict(model.named_modules())
    alike = set()
    for member in group.members:
        owner = member.name.rpartition('.')[0]
        while owner and type(modules[owner]).__module__.startswith('torch.nn.'):
            owner = owner.rpartition('.')[0]
        if not member.is_output or not owner:
            continue
        place = member.name.removeprefix(owner)
        kind = type(modules[owner])
        alike |= {f'{name}{place}' for name, module in modules.items() if type(module) is kind}
    return [
        other.index
        for other in groups
        if other is not group and any(m.is_output and m.name in alike for m in other.members)
    ]


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
