# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real

import torch
from mmengine.logging import print_log
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from .adasap_optim_wrapper import AdaSAPOptimWrapper
from .gradients import (
    all_finite,
    cloned_gradients,
    finite_everywhere,
    optimizer_parameters,
    unscale,
)

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@OPTIM_WRAPPERS.register_module()
class AdaSAPAmpOptimWrapper(AdaSAPOptimWrapper):
    """AdaSAPOptimWrapper with mixed precision: both passes run under autocast.

    Weights, ε, norms and radii stay in float32. In float16 the loss is scaled, since small
    gradients would vanish: by the same scale in both passes, out of which ε is divided again.
    Where the gradient of either pass is not finite, the weights go back and the step is skipped,
    also if it is that of one of several micro-batches. The scale, if there is one, is lowered
    once, as GradScaler does it. To know of it the host waits for the GPU once a step.

    Without a perturbation this is mmengine's AmpOptimWrapper, which also runs on a CPU.
    Observers of the clean gradient see it without the scale, and are not called where it holds
    an inf or a NaN; to know that, the host waits for the GPU.

    Args:
        *args: Those of :class:`AdaSAPOptimWrapper`.
        dtype (str | torch.dtype, optional): 'bfloat16', on GPU and CPU, or 'float16', on a GPU
            alone. Defaults to None: what ``train.py --amp`` takes, which is float16 on a GPU;
            bfloat16 on a CPU. Prefer 'bfloat16' on a GPU that has it: its range is that of
            float32, so that nothing is scaled or skipped.
        loss_scale (str | float | dict): 'dynamic' scales in float16 and starts as GradScaler
            does. A number is a scale that stays, a dict has arguments of
            :class:`torch.amp.GradScaler`; these two scale in bfloat16, too. Before PyTorch 2.3
            nothing is scaled on a CPU, and PyTorch warns. Defaults to 'dynamic'.
        **kwargs: Those of :class:`AdaSAPOptimWrapper`, ``perturbation`` among them.

    Attributes:
        loss_scaler (torch.amp.GradScaler | None): What scales the loss; None if nothing does.
        cast_dtype (torch.dtype): What autocast computes in.

    Raises:
        ValueError: If an argument is not valid, or the model is on a CPU in float16.
    """

    def __init__(
        self,
        *args,
        dtype: str | torch.dtype | None = None,
        loss_scale: str | float | Mapping = 'dynamic',
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        # The model is on its device before its optimizer is made, in mmengine and elsewhere: an
        # optimizer holds the parameters, which moving a model may replace.
        self.cast_dtype = _cast_dtype(dtype, self._device.type)
        scaler = _grad_scaler(loss_scale, self.cast_dtype, self._device.type)
        self.loss_scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._has_skipped = False
        self._fixed_scale = None if isinstance(loss_scale, str | Mapping) else float(loss_scale)

    @property
    def _device(self) -> torch.device:
        """Return where the weights are."""
        return self.optimizer.param_groups[0]['params'][0].device

    @contextmanager
    def _pass_context(self, model: nn.Module) -> Iterator[None]:
        with (
            super()._pass_context(model),
            torch.autocast(self._device.type, dtype=self.cast_dtype),
        ):
            yield

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Run a backward pass of the scaled loss, and count it.

        Args:
            loss (Tensor): The loss, without the scale.
            **kwargs: Arguments of :meth:`torch.Tensor.backward`.
        """
        super().backward(self._scaled(loss), **kwargs)

    def step(self, **kwargs) -> None:
        """Clip and step without the scale, if all gradients are finite; then adapt the scale.

        Args:
            **kwargs: Arguments of the optimizer's ``step``.
        """
        if self.loss_scaler is None:
            if all_finite(optimizer_parameters(self.optimizer), self._device):
                super().step(**kwargs)
            elif not self._has_skipped:
                self._has_skipped = True
                print_log(
                    'AdaSAPAmpOptimWrapper skips a step whose gradient is not finite, and will '
                    'not say so again; if the loss stays inf or NaN, lower the learning rate',
                    'current',
                    logging.WARNING,
                )
            return
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)  # unless a gradient is not finite
        self.loss_scaler.update(self._fixed_scale)

    def state_dict(self) -> dict:
        """Return the optimizer's state, and that of the scaler, if any, under 'loss_scaler'.

        The same key as in mmengine's AmpOptimWrapper, so that either resumes the other's runs.
        """
        state = super().state_dict()
        if self.loss_scaler is not None:
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Take up a state of any OptimWrapper.

        A scaler starts anew where none was saved, and one that is not needed is left out.

        Args:
            state_dict (dict): What :meth:`state_dict` of this or another wrapper gave.
        """
        state = dict(state_dict)
        scaler = state.pop('loss_scaler', None)
        if scaler and self.loss_scaler is not None:
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state)

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.loss_scaler is None else self.loss_scaler.scale(loss)

    def _unscale(self, params: list[nn.Parameter]) -> Tensor:
        """Divide gradients by the scale, in place, and return whether they are finite, 0-dim."""
        return unscale(params, self._scaled(torch.ones((), device=self._device)))

    def _observe(self) -> None:
        # In one pass these gradients go on to the step, so the scale has to stay in them.
        params = optimizer_parameters(self.optimizer)
        with cloned_gradients(params):
            if self._unscale(params):
                super()._observe()

    def _backward_clean(self, loss: Tensor, params: list[nn.Parameter]) -> Tensor:
        self._scaled(loss).backward()
        finite = self._unscale(params)
        if self._observers and finite:
            super()._observe()
        return finite & finite_everywhere(loss)

    def _backward_perturbed(self, loss: Tensor, usable: Tensor) -> None:
        # A clean pass that overflowed has to skip the step, too, though its gradient is gone by
        # then. Through the loss all processes get to know of it.
        loss = loss * torch.where(usable, 1.0, math.nan)
        super()._backward_perturbed(loss, usable)


def _cast_dtype(dtype: str | torch.dtype | None, device: str) -> torch.dtype:
    """Return what autocast is to compute in.

    Raises:
        ValueError: If that is not possible on such a device.
    """
    if dtype is None:
        return torch.autocast(device).fast_dtype
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in DTYPES.values():
        raise ValueError(
            f"optim_wrapper.dtype={dtype!r} is unknown; use 'bfloat16' or 'float16', or leave it "
            f'out; float32 needs AdaSAPOptimWrapper'
        )
    if found is torch.float16 and device == 'cpu':
        raise ValueError(
            f'optim_wrapper.dtype={dtype!r} needs a GPU, and the model is on the CPU; write '
            f"dtype='bfloat16'"
        )
    return found


def _grad_scaler(
    loss_scale: str | float | Mapping, dtype: torch.dtype, device: str
) -> torch.amp.GradScaler | None:
    """Return the scaler that ``loss_scale`` asks for; None if it asks for none.

    Raises:
        ValueError: If it asks for something else.
    """
    if isinstance(loss_scale, str) and loss_scale == 'dynamic':
        return _scaler_on(device) if dtype is torch.float16 else None
    if isinstance(loss_scale, Mapping):
        try:
            return _scaler_on(device, **loss_scale)
        except (AssertionError, TypeError) as error:
            raise ValueError(
                f'optim_wrapper.loss_scale={dict(loss_scale)} does not suit GradScaler ({error}); '
                f'give arguments of it, for example dict(init_scale=1024.0)'
            ) from error
    is_number = isinstance(loss_scale, Real) and not isinstance(loss_scale, bool)
    if not is_number or not 0 < loss_scale < math.inf:
        raise ValueError(
            f"optim_wrapper.loss_scale={loss_scale!r} must be 'dynamic', a number above 0, or a "
            f'dict with arguments of GradScaler'
        )
    return _scaler_on(device, init_scale=float(loss_scale))


def _scaler_on(device: str, **kwargs) -> torch.amp.GradScaler:
    if hasattr(torch.amp, 'GradScaler'):
        return torch.amp.GradScaler(device, **kwargs)
    return torch.cuda.amp.GradScaler(**kwargs)  # torch before 2.3
