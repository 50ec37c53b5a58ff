# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Prune until a network takes a wanted share of the dense one's time, by timing cut copies.

No prediction takes part in it: whatever an arm of equal_time.py limits, the fraction to which it
limits that is found by bisection over times that were measured.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.export import time_share
from mmdet_adasap.hooks import AdaSAPHook
from mmdet_adasap.hooks.latency_target import LatencyTiming
from mmdet_adasap.integration import unwrapped
from mmdet_adasap.models import preprocess_batch
from mmdet_adasap.optim import preserve_rng_state
from mmdet_adasap.pruning import Target, copy_model

BACKENDS = ('onnxruntime', 'torch')

ROUGH, EXACT = 2, 5
"""Times that a pair of networks is loaded anew: at the first event, where scores and so the
fraction still change, and from the last one on."""
CLOSE = 0.01
"""Relative distance from the wanted share at which a search ends: a third of what is asked for."""
TRIES = 12
"""Halvings in a search, at most: fractions are then 0.0003 apart."""


def default_backend() -> str:
    """Return 'onnxruntime' if it is installed with what exports to it, else 'torch'."""
    present = all(find_spec(name) is not None for name in ('onnx', 'onnxruntime'))
    return BACKENDS[0] if present else BACKENDS[1]


def find_fraction(
    share_at: Callable[[float], float], wanted: float, high: float = 1.0
) -> tuple[float, float]:
    """Find the fraction of a resource at which a network takes the wanted share of time.

    Bisection, which ends early within :data:`CLOSE`. Where times jump, the closest one is taken.

    Args:
        share_at (Callable): Returns the measured share at a fraction, 0 where a model cannot be
            cut that far; rises with the fraction, but for jumps and noise.
        wanted (float): The share that is wanted.
        high (float): The largest fraction there can be. Defaults to 1.0.

    Returns:
        tuple[float, float]: The fraction, and the share measured there.
    """
    low, best = 0.0, (high, share_at(high))
    if best[1] <= wanted * (1 + CLOSE):
        return best
    for _ in range(TRIES):
        middle = (low + high) / 2
        share = share_at(middle)
        if abs(share - wanted) < abs(best[1] - wanted):
            best = middle, share
        if abs(share - wanted) <= CLOSE * wanted:
            break
        low, high = (middle, high) if share < wanted else (low, middle)
    return best


@HOOKS.register_module()
class EqualTimeHook(AdaSAPHook):
    """AdaSAPHook that prunes to a share of the dense network's time.

    At the first event it finds the fraction of its resource that takes this share, and goes there
    in the usual schedule. At the last event it looks again, with the scores that there are then.

    Args:
        share (float): The share of time that is wanted.
        backend (str): What the networks are timed in, one of :data:`BACKENDS`.
        **kwargs: Those of AdaSAPHook; of ``target`` the resource counts, not the fraction.

    Attributes:
        fraction (float): The fraction of the resource at the last event; 1 before the first.
        searched (float | None): The share of time that the last search measured.
        measured (float | None): The share of time that was measured after the training.
    """

    def __init__(self, share: float, backend: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.share, self.backend = share, backend
        self.fraction, self.searched, self.measured = 1.0, None, None
        self._dense: nn.Module | None = None

    def _prune(self, runner: Runner, event: int) -> None:
        if event in (1, self.phases.events):
            with preserve_rng_state(unwrapped(runner.model)):
                self._find_fraction(runner, EXACT if event == self.phases.events else ROUGH)
        super()._prune(runner, event)

    def _find_fraction(self, runner: Runner, sessions: int) -> None:
        pruner = self.pruner
        if self._dense is None:
            self._dense = copy_model(unwrapped(runner.model))
        shares: dict[tuple[int, ...], float] = {}

        def share_at(fraction: float) -> float:
            try:
                kept = pruner.select(fraction)
            except UnreachableTargetError:
                return 0.0
            # Networks of the same widths take the same time, whichever channels they keep.
            widths = tuple(int(k.sum()) for k in kept)
            if widths not in shares:
                shares[widths] = self._time_share(runner, pruner.cut_copy(kept), sessions)
            return shares[widths]

        self.fraction, self.searched = find_fraction(share_at, self.share, pruner.remaining())

    def _time_share(self, runner: Runner, slim: nn.Module, sessions: int) -> float:
        shape = _image_shape(runner)
        return time_share(self._dense, slim, shape, self.backend, pairs=sessions)

    def _find_channels(self, runner: Runner) -> None:
        super()._find_channels(runner)
        # This class corrects the time itself, for arms of all resources alike.
        self._timing = LatencyTiming(Target({}), runner.logger)

    def _targets_after(self, event: int) -> dict[str, float]:
        """Return the fraction that is to remain after an event, see AdaSAPHook."""
        (resource,) = self.settings.target.resources
        start = self.start_fractions.get(resource, 1.0)
        return {resource: self.phases.fraction(self.fraction, event, start)}

    def after_train(self, runner: Runner) -> None:
        """Measure the share of time that the slim network takes."""
        super().after_train(runner)
        slim = copy_model(unwrapped(runner.model))
        self.measured = self._time_share(runner, slim, EXACT)


def _image_shape(runner: Runner) -> list[int]:
    """Return the shape of the first validation image, preprocessed, ``[1, 3, H, W]``."""
    loader = runner.val_loop.dataloader
    batch = loader.collate_fn([loader.dataset[0]])
    return list(preprocess_batch(unwrapped(runner.model), batch)['inputs'].shape)
