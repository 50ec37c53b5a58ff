# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Gradients between a backward pass and the step: set aside, observed, averaged, unscaled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer


def optimizer_parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return all parameters that an optimizer steps."""
    return [parameter for group in optimizer.param_groups for parameter in group['params']]


@contextmanager
def isolated_gradients(parameters: Iterable[nn.Parameter], add: bool) -> Iterator[None]:
    """Let a backward pass start at no gradient, whatever was accumulated before.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are set aside.
        add (bool): Whether the new gradients are added to the old ones in the end; they are
            dropped otherwise, and if the block raises.
    """
    parameters = list(parameters)
    accumulated = [parameter.grad for parameter in parameters]
    # With gradient_as_bucket_view a gradient is a part of the bucket of its wrapper, into
    # which the next pass writes.
    if get_world_size() > 1:
        accumulated = [None if old is None else old.clone() for old in accumulated]
    for parameter in parameters:
        parameter.grad = None
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for parameter, old in zip(parameters, accumulated, strict=True):
            new, parameter.grad = parameter.grad, old
            if add and succeeded and new is not None:
                parameter.grad = new if old is None else old.add_(new)


@contextmanager
def cloned_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let the block work in copies of the gradients; they are as before afterwards.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are copied.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters]
    try:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


class GradientObserverMixin:
    """An OptimWrapper that shows the gradient of each clean backward pass to observers.

    At that moment every ``param.grad`` holds the gradient at w of one micro-batch alone, of the
    loss as :meth:`~mmengine.optim.OptimWrapper.scale_loss` divides it, before it is clipped or
    added to what is accumulated. In a distributed run it is averaged over the processes, also
    where mmengine would leave that to the last micro-batch.

    To be derived from in front of OptimWrapper; :func:`observe_clean_gradients` gives it to a
    wrapper that does not. Without an observer it changes nothing.
    """

    # Of the class, since a wrapper that gets the interface later has run its __init__ already.
    _observers: tuple[Callable[[], None], ...] = ()

    def add_clean_gradient_observer(self, observer: Callable[[], None]) -> None:
        """Have ``observer()`` called after each clean backward pass.

        Args:
            observer (Callable): Called without arguments; it must not change the gradients.
        """
        self._observers = (*self._observers, observer)

    def remove_clean_gradient_observer(self, observer: Callable[[], None]) -> None:
        """Undo :meth:`add_clean_gradient_observer`.

        Args:
            observer (Callable): What was added.

        Raises:
            ValueError: If it was not.
        """
        left = list(self._observers)
        left.remove(observer)
        self._observers = tuple(left)

    def should_sync(self) -> bool:
        """Return whether the gradient of the pass to come is averaged over the processes."""
        return self._is_observed() or super().should_sync()

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Run a backward pass, and show its gradient if it is the clean one.

        Args:
            loss (Tensor): The loss, divided by the number of micro-batches.
            **kwargs: Arguments of :meth:`torch.Tensor.backward`.
        """
        if not self._is_observed():
            super().backward(loss, **kwargs)
            return
        with isolated_gradients(optimizer_parameters(self.optimizer), add=True):
            super().backward(loss, **kwargs)
            self._observe()

    def _is_observed(self) -> bool:
        """Return whether the next backward pass is one that observers are to see."""
        return bool(self._observers)

    def _observe(self) -> None:
        for observer in self._observers:
            observer()


def observe_clean_gradients(optim_wrapper: OptimWrapper, observer: Callable[[], None]) -> None:
    """Add an observer to a wrapper of any kind, also between two steps of it.

    One without :class:`GradientObserverMixin` gets it: its class is replaced by one of the same
    name that derives from both, as ``torch.nn.utils.parametrize`` does it with modules. The
    object stays the same, since schedulers and other hooks hold it, too; so does what its class
    overrides. ``remove_clean_gradient_observer`` of the wrapper undoes it.

    Args:
        optim_wrapper (OptimWrapper): The wrapper. In a distributed run, that of every process.
        observer (Callable): As for :meth:`GradientObserverMixin.add_clean_gradient_observer`.
    """
    kind = type(optim_wrapper)
    if not isinstance(optim_wrapper, GradientObserverMixin):
        names = {key: getattr(kind, key) for key in ('__module__', '__qualname__', '__doc__')}
        optim_wrapper.__class__ = type(kind.__name__, (GradientObserverMixin, kind), names)
    # So far mmengine has left the average to the last micro-batch of a step; from now on each one
    # is averaged on its own, and what was accumulated before would never be.
    average_gradients(optimizer_parameters(optim_wrapper.optimizer))
    optim_wrapper.add_clean_gradient_observer(observer)


@torch.no_grad()
def unscale(parameters: Iterable[nn.Parameter], scale: Tensor) -> Tensor:
    """Divide gradients by the scale of the loss, in place, and see whether all are finite.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are divided, on one device.
        scale (Tensor): By what the loss was multiplied, 0-dim.

    Returns:
        Tensor: Whether no gradient had an inf or a NaN, as a 0-dim bool tensor that nothing has
        waited for.
    """
    parameters = list(parameters)
    finite = all_finite(parameters, scale.device)
    gradients = _gradients(parameters)
    if gradients:
        # Reciprocals as GradScaler takes them, so that both see the same numbers.
        torch._foreach_mul_(gradients, scale.double().reciprocal().float())
    return finite


@torch.no_grad()
def all_finite(parameters: Iterable[nn.Parameter], device: torch.device) -> Tensor:
    """Return whether no gradient has an inf or a NaN, without waiting for the device.

    Args:
        parameters (Iterable[nn.Parameter]): Those whose gradients are looked at.
        device (torch.device): Where the answer is to be if there is no gradient.

    Returns:
        Tensor: A 0-dim bool tensor.
    """
    gradients = _gradients(parameters)
    if not gradients:
        return torch.ones((), dtype=torch.bool, device=device)
    # The largest absolute value cannot overflow as a sum of squares can; that of a NaN is NaN.
    largest = torch._foreach_norm(gradients, float('inf'))
    return torch.stack([value.float() for value in largest]).isfinite().all()


def _gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return [gradient for gradient in gradients if gradient.numel()]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average what each process has accumulated on its own; nothing to do in a single one.

    Args:
        parameters (Iterable[nn.Parameter]): The same in every process.
    """
    if get_world_size() == 1:
        return
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    # A process may have no gradient of a layer that another one has, and all must reduce alike.
    present = [parameter.grad is not None for parameter in parameters]
    device = parameters[0].device if parameters else None
    somewhere = torch.tensor(present, dtype=torch.float32, device=device)
    all_reduce(somewhere, op='max')
    for parameter, found in zip(parameters, somewhere.tolist(), strict=True):
        if found:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad, op='mean')


def finite_everywhere(loss: Tensor) -> Tensor:
    """Return whether a loss is finite in every process, without waiting for the device.

    Args:
        loss (Tensor): The loss of this process, 0-dim.

    Returns:
        Tensor: A 0-dim bool tensor, the same in every process.
    """
    finite = torch.isfinite(loss.detach())
    if get_world_size() == 1:
        return finite
    finite = finite.float()
    all_reduce(finite, op='min')
    return finite > 0


def averaged(*values: Tensor) -> Tensor:
    """Return numbers of this process averaged over all, without waiting for the device.

    Args:
        *values (Tensor): 0-dim, on one device.

    Returns:
        Tensor: float32 of shape ``[values]``.
    """
    found = torch.stack([value.detach().float() for value in values])
    if get_world_size() > 1:
        all_reduce(found, op='mean')
    return found
