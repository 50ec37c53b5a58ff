# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Perturbations: move weights to w + ε and back, with AdaSAP's radii or with one for all."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .blocks import Block, find_blocks, kept_neurons, neuron_norms, pad_to_rows
from .loss_ratio import LossRatioController, check_scalable
from .radius import SCORES, adaptive_radii

SCOPES = ('global', 'layer', 'neuron')
PARAMETERS = ('all', 'weights')


class PerturbationStats(NamedTuple):
    """Figures of a perturbation, as 0-dim tensors on the device of the weights (no sync).

    Attributes:
        mean_rho (Tensor): Mean radius over the kept neurons.
        eps_norm (Tensor): ‖ε‖₂ over all that was moved.
        weight_norm (Tensor): ‖w‖₂ over the same kept neurons, before they were moved.
    """

    mean_rho: Tensor
    eps_norm: Tensor
    weight_norm: Tensor

    @property
    def ratio(self) -> Tensor:
        """Relative size ‖ε‖/‖w‖, by which radii of different scopes can be compared."""
        # tiny, so that weights that are all 0 give 0 / tiny and not 0 / 0.
        return self.eps_norm / self.weight_norm.clamp_min(torch.finfo(torch.float32).tiny)


class Perturbation(ABC):
    """Moves weights uphill to w + ε and puts them back exactly.

    For neuron i with gradient g_i and radius rho_i, as ASAM (arXiv:2102.11600) does it,

        ``ε_i = rho_i * T_w² g_i / ‖T_w g‖₂``, with ``T_w = |w| + eta`` if ``asam``, else 1,

    the norm taken over ``scope``. ε does not depend on the scale of the gradients, so a loss that
    a GradScaler has scaled needs no unscaling. A scope whose norm is zero or not finite is not
    moved; nor are parameters that are frozen or without a gradient, nor neurons that ``keep``
    excludes.

    Shapes are read at each call, so parameters may be cut through ``.data`` in between. After
    Parameters were *replaced*, call :meth:`attach` again.

    Args:
        scope (str): Over what ‖T_w g‖ is taken: 'global', 'layer' (one tensor) or 'neuron'.
        asam (bool): Whether to scale by the weights' own size, as ASAM does.
        eta (float): Added to |w| in T_w, so that weights at zero can move, too.
        loss_ratio (float, optional): Wanted mean of L(w+ε)/L(w): all radii are multiplied by what
            brings it there, see :class:`LossRatioController`, and :meth:`update` has to be called
            after each step. Defaults to None: the radii are as given.

    Attributes:
        keep (Mapping[str, Tensor]): Bool masks over the neuron axis of parameters by name, True
            for the neurons that still take part. Parameters that are not named are whole.

    Examples:
        >>> perturbation = UniformPerturbation(rho=0.05)
        >>> perturbation.attach(model)
        >>> loss(model).backward()
        >>> with perturbation.applied():
        ...     loss(model).backward()
        >>> optimizer.step()
    """

    def __init__(
        self, scope: str, asam: bool, eta: float, loss_ratio: float | None = None
    ) -> None:
        self.scope = _one_of('scope', scope, SCOPES)
        if not isinstance(asam, bool):
            raise ValueError(f'asam={asam!r} must be True or False')
        self.asam = asam
        self.eta = _non_negative('eta', eta)
        self.loss_ratio = loss_ratio
        self._controller = None if loss_ratio is None else LossRatioController(loss_ratio)
        self.keep: Mapping[str, Tensor] = {}
        self._blocks: list[Block] | None = None
        self._backups: list[tuple[nn.Parameter, Tensor]] = []
        self._last: tuple[Tensor, Tensor | bool] | None = None

    @property
    def controller(self) -> LossRatioController | None:
        """What scales the radii, if anything does."""
        return self._controller

    def attach(self, model: nn.Module) -> None:
        """Collect the parameters to move; which of them are frozen is read in each step.

        Args:
            model (nn.Module): A model without a distributed wrapper, as ``keep`` goes by its
                parameters' names.

        Raises:
            ValueError: If the model has nothing that this perturbation could move.
        """
        self.restore()
        blocks = [block for block in find_blocks(model) if self._moves(block)]
        if not blocks:
            raise ValueError(
                f'{type(self).__name__} finds no weight of a convolution or linear layer in '
                f"{type(model).__name__}; use UniformPerturbation(parameters='all') for such "
                'a model'
            )
        self._blocks = blocks

    def _moves(self, block: Block) -> bool:
        """Return whether this perturbation moves a parameter."""
        return block.is_weight

    @abstractmethod
    def _radii(self, weights: list[Tensor], blocks: list[Block], keep: Tensor) -> Tensor:
        """Return the radii of all neurons, float, [blocks, neurons], 0 where ``keep`` is False."""

    @torch.no_grad()
    def perturb(self, enabled: Tensor | None = None) -> PerturbationStats:
        """Move the attached parameters by ε, computed from their gradients.

        Consumes the gradients: ε is computed in their buffers, and ``param.grad`` of what was
        moved is None afterwards. So no more memory is held than a copy of the weights. Parameters
        below float32 are computed in float32 copies.

        Args:
            enabled (Tensor, optional): 0-dim bool tensor; False makes every ε zero without
                the host waiting for it. Defaults to None: enabled.

        Returns:
            PerturbationStats: Mean radius and norms.

        Raises:
            RuntimeError: If :meth:`attach` has not been called, or the weights are still moved.
            ValueError: If a mask in ``keep`` does not fit its parameter.
        """
        if self._blocks is None:
            raise RuntimeError('call attach(model) before perturb()')
        if self._backups:
            raise RuntimeError('the weights are still perturbed; call restore() first')
        blocks = [b for b in self._blocks if b.param.requires_grad and b.param.grad is not None]
        if not blocks:
            return PerturbationStats(*torch.zeros(3).unbind())

        params = [block.param for block in blocks]
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in params) else torch.float32
        weights = [param.to(dtype) for param in params]
        directions = [param.grad.to(dtype) for param in params]
        keep = kept_neurons(blocks, self.keep)
        radii = self._radii(weights, blocks, keep)
        if self._controller is not None:
            radii = radii * self._controller.scale.to(radii)
        sizes = torch.where(keep, neuron_norms(weights, blocks), 0.0)

        # The _foreach functions, which torch.optim uses, launch one kernel for many tensors.
        if self.asam:
            scratch = torch._foreach_abs(weights)
            torch._foreach_add_(scratch, self.eta)  # T_w
            torch._foreach_mul_(directions, scratch)
        else:
            scratch = [torch.empty_like(weight) for weight in weights]
        norms = self._scope_norms(neuron_norms(directions, blocks), blocks, keep)
        if self.asam:  # the second factor of T_w² g, after the norm of T_w g
            torch._foreach_mul_(directions, scratch)

        # Tensors instead of branches: an `if` on a value would make the host wait for the GPU.
        movable = keep & torch.isfinite(norms) & (norms > 0)
        if enabled is not None:
            movable = movable & enabled.to(movable.device)
        steps = torch.where(movable, radii / norms, 0.0)
        fixed = steps == 0
        for row, (block, direction) in enumerate(zip(blocks, directions, strict=True)):
            # The fill is needed: a masked or disabled neuron may hold NaN, and 0 * NaN is NaN.
            direction.mul_(block.broadcast(steps[row]))
            direction.masked_fill_(block.broadcast(fixed[row]), 0.0)

        stats = PerturbationStats(
            mean_rho=radii.sum() / keep.sum().clamp_min(1),
            eps_norm=torch.linalg.vector_norm(torch.stack(torch._foreach_norm(directions))),
            weight_norm=torch.linalg.vector_norm(sizes),
        )
        self._last = stats.ratio, True if enabled is None else enabled
        self._move(params, weights, directions, scratch)  # last: nothing may fail after it
        return stats

    def _move(
        self,
        params: list[nn.Parameter],
        weights: list[Tensor],
        directions: list[Tensor],
        scratch: list[Tensor],
    ) -> None:
        """Add ε to the parameters and free their gradients.

        Args:
            params (list[nn.Parameter]): What to move.
            weights (list[Tensor]): The parameters themselves, or copies in a higher precision.
            directions (list[Tensor]): Their ε.
            scratch (list[Tensor]): Memory of the size of ``weights`` that becomes the backup.
        """
        backups = [
            spare if spare.dtype == param.dtype else torch.empty_like(param)
            for spare, param in zip(scratch, params, strict=True)
        ]
        torch._foreach_copy_(backups, params)
        self._backups = list(zip(params, backups, strict=True))
        # An out-of-memory error on the way must not leave some weights at w + ε.
        try:
            torch._foreach_add_(weights, directions)
            for param, weight in zip(params, weights, strict=True):
                if weight is not param:
                    param.copy_(weight)
                param.grad = None
        except BaseException:
            self.restore()
            raise

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the weights exactly, and free the copy. A second call does nothing."""
        if self._backups:
            params, backups = zip(*self._backups, strict=True)
            torch._foreach_copy_(params, backups)
            self._backups = []

    def update(self, loss: Tensor, perturbed_loss: Tensor) -> None:
        """Tell what the last :meth:`perturb` did to the loss, for ``loss_ratio`` to hold.

        Args:
            loss (Tensor): L(w), 0-dim, the same in all processes.
            perturbed_loss (Tensor): L(w+ε), the same.
        """
        if self._controller is not None and self._last is not None:
            self._controller.update(loss, perturbed_loss, *self._last)
            self._last = None

    @contextmanager
    def applied(self) -> Iterator[PerturbationStats]:
        """Perturb inside the ``with`` block, and restore when it ends, also by an error."""
        stats = self.perturb()
        try:
            yield stats
        finally:
            self.restore()

    def _scope_norms(self, norms: Tensor, blocks: list[Block], keep: Tensor) -> Tensor:
        """Return ‖T_w g‖ over the scope for every neuron, from the norms of the single neurons.

        Args:
            norms (Tensor): Norms of the single neurons, [blocks, neurons].
            blocks (list[Block]): The blocks, one a row.
            keep (Tensor): Neurons that take part, bool, [blocks, neurons].

        Returns:
            Tensor: Norms, broadcastable to [blocks, neurons].
        """
        norms = torch.where(keep, norms, 0.0)
        layer = torch.linalg.vector_norm(norms, dim=1, keepdim=True)
        if self.scope == 'layer':
            return layer
        if self.scope == 'global':
            return torch.linalg.vector_norm(layer)
        # Biases and norms have no neurons; with scope="neuron" each tensor is one block.
        has_neurons = torch.tensor([[block.is_weight] for block in blocks], device=norms.device)
        return torch.where(has_neurons, norms, layer)


class AdaptivePerturbation(Perturbation):
    """AdaSAP's perturbation (arXiv:2306.14306): neurons with low scores are moved further.

    Moves the weights of convolution and linear layers; biases and normalisation stay. Radii
    are distributed within a layer, see :func:`~mmdet_adasap.sharpness.adaptive_radii`.

    Args:
        rho_min (float): Radius of a layer's neuron with the highest score. Defaults to 0.004.
        rho_max (float): Radius of a layer's neuron with the lowest score. Defaults to 0.4.
        scope (str): Over what ‖T_w g‖ is taken: 'global', 'layer' (one weight tensor) or
            'neuron'. A radius means nothing without its scope. Defaults to 'layer'.
        asam (bool): Whether T_w is |w| + eta instead of 1. Defaults to True.
        eta (float): See ``asam``. Defaults to 0.01.
        score (str): Score ψ(w_i) of a neuron. Defaults to 'magnitude'.
        loss_ratio (float, optional): Wanted mean of L(w+ε)/L(w), above 1, as 1.3: both radii are
            scaled until it is so, in some tens of steps. Defaults to None: they stay.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If a radius or ``eta`` is not a number.
    """

    def __init__(
        self,
        rho_min: float = 0.004,
        rho_max: float = 0.4,
        scope: str = 'layer',
        asam: bool = True,
        eta: float = 0.01,
        score: str = 'magnitude',
        loss_ratio: float | None = None,
    ) -> None:
        super().__init__(scope, asam, eta, loss_ratio)
        self.rho_min = _non_negative('rho_min', rho_min)
        self.rho_max = _non_negative('rho_max', rho_max)
        if rho_min > rho_max:
            raise ValueError(
                f'rho_min={rho_min} is larger than rho_max={rho_max}; rho_max is the radius of '
                'the least important neurons, so give rho_min <= rho_max'
            )
        check_scalable('rho_max', rho_max, loss_ratio)
        self.score = _one_of('score', score, tuple(SCORES))

    def _radii(self, weights: list[Tensor], blocks: list[Block], keep: Tensor) -> Tensor:
        score = SCORES[self.score]
        scores = pad_to_rows(
            [score(weight, block.axis) for weight, block in zip(weights, blocks, strict=True)]
        )
        return adaptive_radii(scores, self.rho_min, self.rho_max, keep)


class UniformPerturbation(Perturbation):
    """One radius for all: SAM (arXiv:2010.01412), or ASAM (arXiv:2102.11600).

    Args:
        rho (float): The radius. Defaults to 0.1.
        scope (str): Over what ‖T_w g‖ is taken: 'global', 'layer' (one tensor) or 'neuron';
            with 'neuron', tensors that have no neurons (biases, normalisation) are one block
            each. Defaults to 'global'.
        asam (bool): Whether T_w is |w| + eta instead of 1. Defaults to False.
        eta (float): See ``asam``. Defaults to 0.01.
        parameters (str): 'all' moves every trainable parameter, 'weights' only those that
            :class:`AdaptivePerturbation` moves. Defaults to 'all'.
        loss_ratio (float, optional): Wanted mean of L(w+ε)/L(w), above 1, as 1.3: the radius is
            scaled until it is so, in some tens of steps. Defaults to None: it stays.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If the radius or ``eta`` is not a number.
    """

    def __init__(
        self,
        rho: float = 0.1,
        scope: str = 'global',
        asam: bool = False,
        eta: float = 0.01,
        parameters: str = 'all',
        loss_ratio: float | None = None,
    ) -> None:
        super().__init__(scope, asam, eta, loss_ratio)
        self.rho = _non_negative('rho', rho)
        check_scalable('rho', rho, loss_ratio)
        self.parameters = _one_of('parameters', parameters, PARAMETERS)

    def _moves(self, block: Block) -> bool:
        return self.parameters == 'all' or block.is_weight

    def _radii(self, weights: list[Tensor], blocks: list[Block], keep: Tensor) -> Tensor:
        # bool times a number is float32, which would round the radii of float64 weights to 5e-8.
        return keep.to(weights[0].dtype) * self.rho


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return ``value`` if it is one of ``allowed``; raise ValueError otherwise."""
    if value not in allowed:
        raise ValueError(f'{key}={value!r} is unknown; use one of {", ".join(map(repr, allowed))}')
    return value


def _non_negative(key: str, value: float) -> float:
    """Return ``value`` as a float if it is a finite number >= 0; raise an error otherwise."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f'{key}={value!r} is not a number; give a number >= 0')
    if not math.isfinite(value) or value < 0:
        raise ValueError(f'{key}={value!r} must be a finite number >= 0')
    return float(value)
