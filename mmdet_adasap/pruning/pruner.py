# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Prune a model in steps: score channels, select, mask, and cut once at the end."""

import hashlib
import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import UnreachableTargetError
from .analysis import attribute_counts, find_channels
from .equivalence import verify_cut
from .importance import Importance, checked_scores
from .joint import solver_of
from .limits import Limits
from .masks import ChannelMasks
from .model_state import ForwardFn, check_finite, check_model, copy_model
from .selection import minimum_counts
from .slicing import cut
from .structure import (
    VERSION,
    Keep,
    check_structure,
    compose,
    digest,
    indices_from_masks,
    is_cut,
    masks_from_structure,
    named_tensors,
    relative_to,
    tag_model,
    tagged_structure,
)
from .target import (
    MAX_PRUNING_RATIO,
    Target,
    check_max_pruning_ratio,
    check_target,
)
from .unreachable import event_message, unreachable_message


class Pruner:
    """Brings a model down to a fraction of its parameters or FLOPs.

    The constructor runs the model to find its groups of tied channels, and verifies them by a
    trial cut of a copy. A model that was cut before is cut further; targets and structures still
    refer to the dense model then.

    Args:
        model (nn.Module): The dense model; changed in place by :meth:`prune_to` and :meth:`cut`.
        forward (Callable): Runs a model on a real input and returns its raw outputs.
        target (dict | Target): What is to remain of the dense model, one or several fractions in
            (0, 1] that all hold: ``params``; ``flops``, its multiply-accumulates on that input;
            ``latency``, its time on the device whose ``table`` is given, or ``'12ms'``.
        importance (Importance): Scores channels.
        round_to (int): Channels that a layer keeps are a multiple of it. Defaults to 1.
        max_pruning_ratio (float): The largest share of its channels that a group may lose, in
            (0, 1]. Where the criterion is wrong about a layer, this much of it is left to learn
            from. Of the model as it is now: a model that is pruned again may lose more.
            Defaults to 0.9.
        solver (str): How channels are chosen within a budget: 'ranked' by their importance alone,
            'joint' by what it adds up to for what they cost. Defaults to 'ranked'.
        objective (str): What the solver 'joint' makes the most of: 'sum', the importance that is
            left in all, or 'log', the logarithms of the share that each group keeps of its own,
            which makes deep cuts dear. Defaults to 'sum'.

    Raises:
        ValueError: If an argument is not valid, or the model cannot be run, copied or cut.
        DivergedError: If a weight is not finite.
        UnreachableTargetError: If protected and rounded channels leave more than the target.
        EquivalenceError: If a trial cut does not give what the masked model gives.

    Attributes:
        channels (PrunableChannels): The groups, and what they cost.
        masks (ChannelMasks): Which channels are kept so far.
        dense (dict[str, int]): Parameters and FLOPs of the dense model; with a target of latency
            its nanoseconds, too.
        targets (dict[str, float]): Resource to the fraction of the dense model that is to remain.
        limits (Limits): What the target means for the model.
        measured (float | None): Share of the dense latency that the choice took when timed.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: ForwardFn,
        target: Mapping | Target,
        importance: Importance,
        round_to: int = 1,
        max_pruning_ratio: float = MAX_PRUNING_RATIO,
        solver: str = 'ranked',
        objective: str = 'sum',
    ) -> None:
        self.target = check_target(target)
        if type(round_to) is not int or round_to < 1:
            raise ValueError(f'round_to={round_to!r} must be an integer of at least 1')
        check_max_pruning_ratio(max_pruning_ratio)
        self._select = solver_of(solver, objective)
        if not isinstance(importance, Importance):
            raise ValueError(f'importance={importance!r} must be a criterion, an Importance')
        check_model(model)
        self.model = model
        check_finite(self.model)
        self.forward = forward
        self.importance = importance
        self.round_to = round_to
        self.max_pruning_ratio = max_pruning_ratio
        self.channels = find_channels(model, forward)
        self._start = base = tagged_structure(model)
        self._is_cut = self._is_selected = False
        self._base = base or {'keep': {}, 'attrs': {}}
        self._steps = self.channels.group_steps(round_to)
        self.limits = Limits(self.channels, self.target, base, self._steps)
        self.dense, self.targets = self.limits.dense, self.limits.fractions
        sizes = self.channels.group_sizes
        self.measured: float | None = None
        self._least = minimum_counts(sizes, self._steps, max_pruning_ratio)
        self.masks = ChannelMasks(model, self.channels.groups)
        self._check_reachable()

    def _check_reachable(self) -> None:
        """Raise UnreachableTargetError if even the smallest groups leave more than the target."""
        for resource, fraction in self.targets.items():
            message = unreachable_message(
                self.model,
                self.channels,
                resource,
                self.limits.costs[resource],
                self.dense,
                self.limits.limit(resource, fraction),
                self.round_to,
                self.max_pruning_ratio,
            )
            if message is not None:
                what = f': {resource}' if len(self.targets) > 1 else ''
                raise UnreachableTargetError(
                    f'{self.target}{what} cannot be reached: {message} '
                    f'(tools/list_groups.py lists what stays and why)'
                )

    def remaining(self, resource: str | None = None) -> float:
        """Return the fraction of the dense model that the kept channels leave.

        Args:
            resource (str, optional): 'params', 'flops' or, with a table, 'latency', predicted.
                Defaults to the first of the target.
        """
        resource = resource or self.target.resources[0]
        return self.limits.left(resource, self.masks.counts)

    def floor(self, resource: str) -> float:
        """Return the fraction of the dense model below which no choice can go.

        Args:
            resource (str): As for :meth:`remaining`.
        """
        return self.limits.left(resource, self.least_counts)

    @property
    def least_counts(self) -> np.ndarray:
        """Channels that each group keeps at the least, int of shape ``[groups]``."""
        return np.minimum(self._least, self.masks.counts)

    @property
    def is_within_target(self) -> bool:
        """Whether the kept channels meet every limit."""
        return self.limits.budget(self.targets).holds(self.masks.counts)

    def observe(self) -> None:
        """Pass the gradients of a clean backward pass to the criterion."""
        self.importance.observe(self.channels.groups, dict(self.model.named_parameters()))

    def prune_to(
        self,
        fractions: float | Mapping[str, float],
        optimizers: Iterable[Optimizer] = (),
        copies: Iterable[nn.Module] = (),
    ) -> None:
        """Mask the least important channels until a fraction of the dense model remains.

        Args:
            fractions (float | Mapping[str, float]): By resource; a number is of that of the
                target, if that has one alone.
            optimizers (Iterable[Optimizer]): Whose state is masked likewise.
            copies (Iterable[nn.Module]): Moving averages of the model, masked likewise.

        Raises:
            DivergedError: If a weight is not finite.
            UnreachableTargetError: If protected and rounded channels leave more.
            ValueError: If the fraction is not one.
            RuntimeError: If the model was cut already.
        """
        self._check_not_cut()
        self.remove(self.select(fractions), optimizers, copies)

    def remove(
        self,
        kept: list[np.ndarray],
        optimizers: Iterable[Optimizer] = (),
        copies: Iterable[nn.Module] = (),
        measured: float | None = None,
    ) -> None:
        """Mask all channels that are not kept.

        Args:
            kept (list[np.ndarray]): What :meth:`select` returned, bool of shape ``[size]`` each.
            optimizers (Iterable[Optimizer]): Whose state is masked likewise.
            copies (Iterable[nn.Module]): Moving averages of the model, masked likewise.
            measured (float, optional): Share of the dense latency that was timed of this choice.

        Raises:
            RuntimeError: If the model was cut already.
        """
        self._check_not_cut()
        self.masks.remove(kept, optimizers, copies)
        self._is_selected, self.measured = True, measured
        self.importance.start_interval()

    def select(self, fractions: float | Mapping[str, float]) -> list[np.ndarray]:
        """Return the channels to keep; the model stays as it is.

        Args:
            fractions (float | Mapping[str, float]): As for :meth:`prune_to`.

        Raises:
            DivergedError: If a weight is not finite.
            UnreachableTargetError: If protected and rounded channels leave more.
            ValueError: If a fraction is not one.
        """
        fractions = self.limits.by_resource(fractions)
        scores, unseen = self.scores()
        budget = self.limits.budget(fractions)
        try:
            return self._select(scores, self.masks.kept, budget, self._steps, self._least)
        except UnreachableTargetError as error:
            left = self.limits.share_of(error.resource, error.remaining)
            criterion = type(self.importance).__name__
            whole = {
                'not trained now': self.untrained_layers(),
                f'without a score of {criterion}, as without a gradient': unseen,
            }
            message = event_message(error.resource, fractions[error.resource], left, whole)
            raise UnreachableTargetError(message, error.remaining, error.resource) from error

    def scores(self) -> tuple[list[np.ndarray], list[str]]:
        """Return the importance of all channels, and the groups of which nothing is known.

        Returns:
            tuple[list[np.ndarray], list[str]]: Float of shape ``[size]`` for each group, inf for
            channels that have to stay; and names of groups without a score.

        Raises:
            DivergedError: If a weight is not finite.
        """
        check_finite(self.model)
        tensors = named_tensors(self.model)
        parameters = dict(self.model.named_parameters())
        scores, unseen = [], []
        with torch.no_grad():
            for group, kept in zip(self.channels.groups, self.masks.kept, strict=True):
                # Training could not make up for the loss of what these layers make.
                if group.untrained_layers(parameters):
                    scores.append(np.full(group.size, np.inf))
                    continue
                device = tensors[group.members[0].name].device
                mask = torch.as_tensor(kept, device=device)
                found = checked_scores(self.importance, group, tensors, mask)
                # A score that is not a number says nothing against its channel.
                scores.append(np.nan_to_num(found.cpu().numpy(), nan=np.inf, posinf=np.inf))
                unseen += [group.name] if found.isnan().all() else []
        return scores, unseen

    def cut_copy(self, kept: list[np.ndarray]) -> nn.Module:
        """Return a copy of the model without the channels that are not kept, to try or to time.

        Args:
            kept (list[np.ndarray]): bool of shape ``[size]`` for each group.
        """
        slim = copy_model(self.model)
        keep = indices_from_masks(slim, self.channels.groups, kept)
        cut(slim, keep, attribute_counts(slim, self.channels, keep, kept))
        return slim

    def untrained_layers(self) -> list[str]:
        """Return the layers that are not trained now, and so keep the channels they have."""
        parameters = dict(self.model.named_parameters())
        found = [group.untrained_layers(parameters) for group in self.channels.groups]
        return list(dict.fromkeys(name for names in found for name in names))

    def restore(self, structure: Mapping, optimizers: Iterable[Optimizer] = ()) -> None:
        """Mask what a structure written in the phase 'prune' has removed.

        Args:
            structure (Mapping): The structure of a checkpoint.
            optimizers (Iterable[Optimizer]): Whose state is masked likewise.

        Raises:
            StructureError: If it is malformed or of another model.
        """
        check_structure(structure)
        keep = relative_to(structure['keep'], self._base['keep'])
        self.masks.remove(masks_from_structure(self.channels.groups, keep), optimizers)
        self._is_selected = True

    def digest(self) -> str:
        """Return 16 hexadecimal digits of a SHA-256 of the groups and the kept channels."""
        found = hashlib.sha256(repr(self.dense).encode())
        for group, kept in zip(self.channels.groups, self.masks.kept, strict=True):
            found.update(kept.tobytes())
            for member in group.members:
                found.update(f'{member.name} {member.axis}'.encode() + member.index.tobytes())
        return found.hexdigest()[:16]

    def structure(self, phase: str) -> dict:
        """Return the kept channels as plain data, see ``structure.py``.

        Args:
            phase (str): 'warmup', 'prune' or 'finetune'.
        """
        return self._make_structure(phase, *self._cut_indices())

    def _make_structure(self, phase: str, keep: Keep, attrs: dict[str, dict[str, int]]) -> dict:
        """Describe a cut relative to the dense model, with what was cut before."""
        attributes = {name: dict(values) for name, values in self._base['attrs'].items()}
        for name, values in attrs.items():
            attributes[name] = {**attributes.get(name, {}), **values}
        structure = {
            'version': VERSION,
            'phase': phase,
            'target': self.target.to_dict(),
            'reached': {r: self.remaining(r) for r in self.limits.costs},
            'dense': dict(self.dense),
            'keep': compose(self._base['keep'], keep),
            'attrs': attributes,
        }
        if 'latency' in self.limits.costs:
            structure['latency'] = self.limits.latency_report(self.masks.counts, self.measured)
        if self._start is not None and not is_cut(structure):
            structure['start'] = dict(self._start)
        return {**structure, 'digest': digest(structure)}

    def cut(self, optimizers: Iterable[Optimizer] = (), copies: Iterable[nn.Module] = ()) -> dict:
        """Slice the masked channels off the model, its optimizers and its copies, in place.

        Args:
            optimizers (Iterable[Optimizer]): Whose state is cut likewise.
            copies (Iterable[nn.Module]): Moving averages of the model, cut likewise.

        Returns:
            dict: The structure of the slim model.

        Raises:
            EquivalenceError: If the slim model would not give what the masked one gives; nothing
                is changed then.
            OptimizerStateError: If an optimizer's state cannot follow.
            RuntimeError: If the model was cut already, or no channels were selected.
        """
        self._check_not_cut()
        if not self._is_selected:
            raise RuntimeError(
                f'cut() removes what prune_to() has masked, and that was not called; call '
                f'prune_to({self._wanted()}) first'
            )
        if not self.is_within_target:
            left = ', '.join(f'{self.remaining(r):.4f} of the {r}' for r in self.targets)
            warnings.warn(
                f'cut() leaves {left}, more than {self.target}; call prune_to({self._wanted()}) '
                f'before it',
                stacklevel=2,
            )
        keep, attrs = self._cut_indices()
        verify_cut(self.model, keep, self.forward, attrs)
        structure = self._make_structure('finetune', keep, attrs)
        self.masks.release()
        cut(self.model, keep, attrs, optimizers)
        for copy in copies:
            cut(copy, keep, attrs)
        tag_model(self.model, structure)
        self._is_cut = True
        return structure

    def _wanted(self) -> str:
        """Return the argument of prune_to() that meets the target."""
        several = len(self.targets) > 1
        return str(self.targets) if several else f'{next(iter(self.targets.values())):g}'

    def _check_not_cut(self) -> None:
        """Raise RuntimeError if the model was cut."""
        if self._is_cut:
            raise RuntimeError('this Pruner has cut its model; make a new one to prune it further')

    def _cut_indices(self) -> tuple[Keep, dict[str, dict[str, int]]]:
        """Return the indices and attributes of the model as it is that the masks keep."""
        kept = self.masks.kept
        keep = indices_from_masks(self.model, self.channels.groups, kept)
        return keep, attribute_counts(self.model, self.channels, keep, kept)
