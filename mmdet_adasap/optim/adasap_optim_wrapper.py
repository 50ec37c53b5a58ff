# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from ..integration import unwrapped
from ..registry import PERTURBATIONS, build, check_arguments, check_integer
from ..sharpness import Perturbation, PerturbationStats
from .directions import check_direction, check_known_ratio, keep_gradients, remember_as_gradients
from .gradients import (
    GradientObserverMixin,
    averaged,
    finite_everywhere,
    isolated_gradients,
)
from .replay import BufferSnapshot, CapturedForward, RandomState

OF_CONSTRUCTOR = ['paramwise_cfg', 'constructor']
"""Keys of ``optim_wrapper`` that mmengine takes out before it builds the wrapper."""
RADII_KEY = 'radii'
"""Where ``state_dict`` has what scales radii."""


@OPTIM_WRAPPERS.register_module()
class AdaSAPOptimWrapper(GradientObserverMixin, OptimWrapper):
    """Steps with the gradient at w + ε instead of that at w, in float32.

    A step with a perturbation is two passes over one batch: the clean one that the training
    loop runs, whose gradient gives ε, and the same again at w + ε, whose gradient is clipped
    and stepped with. The second one sees the same preprocessed inputs and random numbers, and
    leaves no trace in the buffers: running statistics come from the clean pass. The weights
    are put back to the bit before the step. With ``accumulative_counts``, ε is computed from
    each micro-batch on its own.

    In a distributed run every clean pass that gives ε, or is observed, is averaged over the
    processes, also where mmengine would leave that to the last micro-batch: all of them move
    the weights by the same ε, that of their batches taken together. Second passes are averaged
    when mmengine says so.

    Cheaper than two passes in every step are ``every`` and ``direction``, see docs/sharpness.md.

    Without a perturbation this is mmengine's OptimWrapper. With one of its own it is SAM for
    any model that trains through mmengine; AdaSAPHook sets another one in each phase.

    Args:
        *args: Those of :class:`mmengine.optim.OptimWrapper`.
        perturbation (dict | Perturbation, optional): How to move the weights, for example
            ``dict(type='UniformPerturbation', rho=0.05)``. Defaults to None: one pass.
        every (int): The weights are moved in every ``every``-th step, and the others are plain
            ones. Defaults to 1: in all.
        direction (str): What ε is computed from: 'gradient', that of a clean pass; 'momentum',
            the optimizer's buffer, downhill, as in MSAM (arXiv:2401.12033); or 'previous', the
            gradient of the step before, uphill, as in S²-SAM (NeurIPS 2024). The last two need
            one pass a step, at w + ε; running statistics and what observers see are of that one,
            and ``loss_ratio`` is not known. Defaults to 'gradient'.
        **kwargs: Those of :class:`mmengine.optim.OptimWrapper`.

    Attributes:
        last_stats (dict[str, Tensor] | None): After a step whose weights were moved, as 0-dim
            tensors that nothing has waited for: 'mean_rho' and 'eps_ratio' (‖ε‖/‖w‖); of two
            passes also 'loss', 'perturbed_loss' and their quotient 'loss_ratio', L(w+ε)/L(w).
            None otherwise.

    Raises:
        SettingError: If an argument is unexpected.
        ValueError: If ``perturbation``, ``every`` or ``direction`` is not valid, or does not suit
            the optimizer.

    Note:
        What a model keeps outside of parameters and buffers, such as a Python counter that
        its forward pass increments, moves twice a step.
    """

    def __init__(
        self,
        *args,
        perturbation: dict | Perturbation | None = None,
        every: int = 1,
        direction: str = 'gradient',
        **kwargs,
    ) -> None:
        check_arguments(type(self).__name__, OptimWrapper, args, kwargs, also=self._other_keys())
        super().__init__(*args, **kwargs)
        check_integer('optim_wrapper.every', every, 1)
        self.every = every
        self.direction = check_direction(direction, self.optimizer)
        self._past_stats: PerturbationStats | None = None
        self.last_stats: dict[str, Tensor] | None = None
        self._forward: CapturedForward | None = None
        self._in_second_pass = False
        self.perturbation = perturbation
        # Nobody has chosen None yet. AdaSAPHook may, and calls the setter to say so.
        self._warns_of_one_pass = perturbation is None

    @classmethod
    def _other_keys(cls) -> list[str]:
        """Return what ``optim_wrapper`` of a config may hold beside OptimWrapper's arguments."""
        ours = [kind for kind in cls.__mro__ if issubclass(kind, AdaSAPOptimWrapper)]
        found = [key for kind in ours for key in inspect.signature(kind).parameters]
        return [key for key in found if key not in ('args', 'kwargs')] + OF_CONSTRUCTOR

    @property
    def perturbation(self) -> Perturbation | None:
        """How the weights are moved; None means one pass. To be set between two steps."""
        return self._perturbation

    @perturbation.setter
    def perturbation(self, perturbation: dict | Perturbation | None) -> None:
        built = build(PERTURBATIONS, perturbation, 'optim_wrapper.perturbation')
        check_known_ratio(built, self.direction)
        self._perturbation: Perturbation | None = built
        self._attached_to: nn.Module | None = None
        self._warns_of_one_pass = False

    def should_sync(self) -> bool:
        """Return whether the gradient of the pass to come is averaged over the processes.

        That of a clean pass always is: all processes have to move their weights by the same ε.
        """
        gives_eps = self._moves and self.direction == 'gradient' and not self._in_second_pass
        return gives_eps or super().should_sync()

    def _is_observed(self) -> bool:
        return not self._in_second_pass and super()._is_observed()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Return the context of the forward pass; with a perturbation, capture its inputs.

        Args:
            model (nn.Module): The model, with its distributed wrapper if it has one.
        """
        self._forward = None
        if not self._moves:
            with self._pass_context(model):
                yield
            return
        bare = unwrapped(model)
        if self._attached_to is not bare:
            self._perturbation.attach(bare)
            self._attached_to = bare
        if self.direction != 'gradient':
            with self._moved_by_the_past(bare), self._pass_context(model):
                yield
            return
        forward = CapturedForward(model)
        try:
            with self._pass_context(model):
                yield
        finally:
            forward.stop()
        self._forward = forward

    @property
    def _moves(self) -> bool:
        """Whether the step that the next micro-batch is of is one that moves the weights."""
        step = self._inner_count // self._accumulative_counts
        return self._perturbation is not None and step % self.every == 0

    @contextmanager
    def _moved_by_the_past(self, model: nn.Module) -> Iterator[None]:
        """Move the weights by what the optimizer remembers; they go back if the block raises."""
        self._perturbation.restore()  # of a pass that was given up
        with isolated_gradients(model.parameters(), add=False):
            remember_as_gradients(self.optimizer, self.direction)
            self._past_stats = self._perturbation.perturb()
        try:
            yield
        except BaseException:
            self._perturbation.restore()
            raise

    def _pass_context(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return the context of one forward pass, clean or perturbed."""
        return super().optim_context(model)

    def update_params(
        self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """Run the backward pass, the second pass if there is a perturbation, and the step.

        Args:
            loss (Tensor): The loss of the clean pass.
            step_kwargs (dict, optional): Arguments of the optimizer's ``step``.
            zero_kwargs (dict, optional): Arguments of the optimizer's ``zero_grad``.

        Raises:
            RuntimeError: If there is a perturbation and the model was not called in
                :meth:`optim_context`, or in a way that cannot be repeated.
        """
        self.last_stats = None
        if self._warns_of_one_pass:
            self._warns_of_one_pass = False
            print_log(
                f'{type(self).__name__} has no perturbation, and no AdaSAPHook sets one: every '
                f'step is a plain one. Put AdaSAPHook into default_hooks, or give the wrapper '
                f'perturbation=dict(...)',
                'current',
                logging.WARNING,
            )
        if not self._moves:
            self._backward_once(loss)
        elif self.direction == 'gradient':
            self._backward_twice(loss)
        else:
            self._backward_moved(loss)
        if self.should_update():
            self.step(**(step_kwargs or {}))
            if self._perturbation is not None and self.direction == 'previous':
                keep_gradients(self.optimizer)
            self.zero_grad(**(zero_kwargs or {}))

    def _backward_once(self, loss: Tensor) -> None:
        """Add the gradient at w to what is accumulated."""
        self.backward(self.scale_loss(loss))

    def _backward_moved(self, loss: Tensor) -> None:
        """Add the gradient at w + ε, where the weights are, to what is accumulated; restore w."""
        stats, self._past_stats = self._past_stats, None
        if stats is None:
            raise RuntimeError(
                f'AdaSAPOptimWrapper moves the weights before the forward pass with '
                f'direction={self.direction!r}; call the model inside optim_context(model)'
            )
        try:
            self.backward(self.scale_loss(loss))
        finally:
            self._perturbation.restore()
        self.last_stats = {'mean_rho': stats.mean_rho, 'eps_ratio': stats.ratio}

    def _backward_twice(self, loss: Tensor) -> None:
        """Take the two passes of a step: find ε at w, add the gradient at w + ε, restore w."""
        forward, self._forward = self._forward, None
        if forward is None or not forward.captured:
            raise RuntimeError(
                'AdaSAPOptimWrapper has not seen the forward pass that it should repeat; call '
                'the model itself, model(...), inside optim_context(model), or set '
                'perturbation=None'
            )
        bare = unwrapped(forward.model)
        # The second pass uses up the random numbers of the first one, and training goes on behind.
        random_after = RandomState.capture(forward.device)
        stats, usable = self._perturb(loss, list(bare.parameters()))
        try:
            # Inside, because a failure to copy must not leave the weights moved.
            buffers = BufferSnapshot(bare)
            self._in_second_pass = True
            try:
                with _fresh_casts(), self._pass_context(forward.model):
                    output = forward.run_again()
                # Outside of autocast, as train_step does it for the clean pass.
                perturbed_loss = _parse_loss(bare, output)
                self._backward_perturbed(self.scale_loss(perturbed_loss), usable)
            finally:
                self._in_second_pass = False
                buffers.restore()
        finally:
            self._perturbation.restore()
            random_after.restore()
        loss, perturbed_loss = loss.detach(), perturbed_loss.detach()
        if self._perturbation.controller is not None:
            self._perturbation.update(*averaged(loss, perturbed_loss))
        self.last_stats = {
            'mean_rho': stats.mean_rho,
            'eps_ratio': stats.ratio,
            'loss': loss,
            'perturbed_loss': perturbed_loss,
            'loss_ratio': perturbed_loss / loss,
        }

    def state_dict(self) -> dict:
        """Return the optimizer's state, and what scales radii, if anything, under 'radii'."""
        state = super().state_dict()
        if self._perturbation is not None and self._perturbation.controller is not None:
            state[RADII_KEY] = self._perturbation.controller.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up a state of any OptimWrapper.

        Args:
            state_dict (dict): What :meth:`state_dict` of this or another wrapper gave.

        Raises:
            ValueError: If what it has of radii is not valid.
        """
        state = dict(state_dict)
        radii = state.pop(RADII_KEY, None)
        if radii and self._perturbation is not None and self._perturbation.controller is not None:
            self._perturbation.controller.load_state_dict(radii)
        super().load_state_dict(state)

    def _perturb(
        self, loss: Tensor, params: list[nn.Parameter]
    ) -> tuple[PerturbationStats, Tensor]:
        """Move the weights by the gradient of the clean pass, and free that gradient.

        Returns:
            tuple[PerturbationStats, Tensor]: What was done, and whether that gradient gave a
            direction, as a 0-dim bool tensor. Where it did not, ε is zero, and the second pass
            repeats the first.
        """
        with isolated_gradients(params, add=False):
            usable = self._backward_clean(self.scale_loss(loss), params)
            return self._perturbation.perturb(enabled=usable), usable

    def _backward_clean(self, loss: Tensor, params: list[nn.Parameter]) -> Tensor:
        """Compute the gradient at w and show it to the observers.

        Args:
            loss (Tensor): The loss, divided by the number of micro-batches.
            params (list[nn.Parameter]): Those that get a gradient.

        Returns:
            Tensor: Whether it gives a direction, as a 0-dim bool tensor.
        """
        # Not self.backward, which counts the micro-batch; that is for the second pass.
        loss.backward()
        self._observe()
        return finite_everywhere(loss)

    def _backward_perturbed(self, loss: Tensor, usable: Tensor) -> None:
        """Add the gradient at w + ε to what is accumulated.

        Args:
            loss (Tensor): The loss, divided by the number of micro-batches.
            usable (Tensor): What :meth:`_backward_clean` returned.
        """
        self.backward(loss)


@contextmanager
def _fresh_casts() -> Iterator[None]:
    """Keep casts of w and of w + ε apart.

    Autocast keeps what it has cast until the outermost autocast ends, and that may be one
    around the whole step.
    """
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.clear_autocast_cache()


def _parse_loss(model: nn.Module, output: Tensor | dict) -> Tensor:
    """Return the loss in what a forward pass returns, as mmengine's ``train_step`` finds it."""
    if isinstance(output, Tensor):
        return output
    return model.parse_losses(output)[0]
