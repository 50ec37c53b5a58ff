# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Prune until a network takes a wanted share of the dense one's time, by timing cut copies.

No prediction takes part in it: whatever an arm of equal_time.py limits, the fraction to which it
limits that is found by bisection over times that were measured.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_adasap.errors import UnreachableTargetError
from mmdet_adasap.export.onnx import export_onnx
from mmdet_adasap.hooks import AdaSAPHook
from mmdet_adasap.integration import unwrapped
from mmdet_adasap.models import preprocess_batch
from mmdet_adasap.optim import preserve_rng_state
from mmdet_adasap.pruning import cut, indices_from_masks
from mmdet_adasap.pruning.analysis import attribute_counts
from mmdet_adasap.pruning.model_state import copy_model

BACKENDS = ('onnxruntime', 'torch')

UNTIMED = 5
"""Runs before any is timed, which allocate memory; after three the times stay the same here."""
BLOCK = 0.02
"""Seconds of the dense network in a round. The clock of a thread ticks in nanoseconds on Linux, so
20 ms are for the interrupts in them to average out."""
ROUNDS = 5
"""Rounds of each pair of sessions. Within one session 15 rounds give a model as 0.998 to 1.002 of
itself, on a quiet server of two cores; sessions differ by more."""
ROUGH, EXACT = 2, 5
"""Fresh pairs of sessions at the first event, where scores and so the fraction still change, and
from the last one on. Where a session's memory lies changes its time: the same pair of networks
measured as 0.401 to 0.417 in four times three sessions."""
CLOSE = 0.01
"""Relative distance from the wanted share at which a search ends: a third of what is asked for."""
TRIES = 12
"""Halvings in a search, at most: fractions are then 0.0003 apart."""


def default_backend() -> str:
    """Return 'onnxruntime' if it is installed with what exports to it, else 'torch'."""
    present = all(find_spec(name) is not None for name in ('onnx', 'onnxruntime'))
    return BACKENDS[0] if present else BACKENDS[1]


class TimedNetwork:
    """A network that is to be timed in one thread.

    Args:
        model (nn.Module): A detector of one stage, or a classifier; set to eval mode.
        inputs (Tensor): Preprocessed images, ``[N, 3, H, W]``.
        backend (str): 'onnxruntime', for which it is exported as tools/export.py does, or 'torch'.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, backend: str) -> None:
        self._model, self._inputs = model.eval(), inputs
        self._exported: bytes | None = None
        if backend == 'onnxruntime':
            with tempfile.TemporaryDirectory() as folder:
                export_onnx(model, inputs, Path(folder))
                self._exported = (Path(folder) / 'model.onnx').read_bytes()

    def session(self) -> Callable[[], object]:
        """Return a function that runs the network once, in a session of its own."""
        if self._exported is None:
            return self._run
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # With more threads the work would be done where the clock of this thread does not see it.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self._exported, options, providers=['CPUExecutionProvider']
        )
        return partial(session.run, None, {'input': self._inputs.numpy()})

    def _run(self) -> object:
        with torch.no_grad():
            return self._model(self._inputs, mode='tensor')


def measured_share(network: TimedNetwork, dense: TimedNetwork, sessions: int) -> float:
    """Return the time of a network as a share of the dense one's.

    Processor time of this thread, so that other processes do not count. Both take turns, and the
    ratio is taken within a round, so that a clock rate that drifts changes both.

    Args:
        network (TimedNetwork): The network.
        dense (TimedNetwork): The dense one.
        sessions (int): Fresh pairs of sessions, of :data:`ROUNDS` rounds each; the median of all
            rounds is taken.
    """
    ratios = []
    for _ in range(sessions):
        dense_run, run = dense.session(), network.session()
        _seconds(run, UNTIMED)
        _seconds(dense_run, UNTIMED)
        repeats = max(1, round(BLOCK / _seconds(dense_run, UNTIMED)))
        ratios += [_seconds(run, repeats) / _seconds(dense_run, repeats) for _ in range(ROUNDS)]
    return statistics.median(ratios)


def _seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the processor seconds of this thread for one of several calls."""
    start = time.thread_time()
    for _ in range(repeats):
        run()
    return (time.thread_time() - start) / repeats


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
        model, pruner = unwrapped(runner.model), self.pruner
        inputs = _first_image(runner)
        if self._dense is None:
            self._dense = copy_model(model)
        dense = TimedNetwork(self._dense, inputs, self.backend)
        shares: dict[tuple[int, ...], float] = {}

        def share_at(fraction: float) -> float:
            try:
                kept = pruner.select(fraction)
            except UnreachableTargetError:
                return 0.0
            # Networks of the same widths take the same time, whichever channels they keep.
            widths = tuple(int(k.sum()) for k in kept)
            if widths not in shares:
                slim, groups = copy_model(model), pruner.channels.groups
                keep = indices_from_masks(model, groups, kept)
                cut(slim, keep, attribute_counts(model, pruner.channels, keep, kept))
                network = TimedNetwork(slim, inputs, self.backend)
                shares[widths] = measured_share(network, dense, sessions)
            return shares[widths]

        self.fraction, self.searched = find_fraction(share_at, self.share, pruner.remaining())

    def _target_after(self, event: int) -> float:
        """Return the fraction that is to remain after an event, see AdaSAPHook."""
        return self.phases.fraction(self.fraction, event, self.start_fraction)

    def after_train(self, runner: Runner) -> None:
        """Measure the share of time that the slim network takes."""
        super().after_train(runner)
        inputs, slim = _first_image(runner), copy_model(unwrapped(runner.model))
        pair = [TimedNetwork(model, inputs, self.backend) for model in (slim, self._dense)]
        self.measured = measured_share(*pair, EXACT)


def _first_image(runner: Runner) -> Tensor:
    """Return the first validation image, preprocessed, ``[1, 3, H, W]``."""
    loader = runner.val_loop.dataloader
    batch = loader.collate_fn([loader.dataset[0]])
    return preprocess_batch(unwrapped(runner.model), batch)['inputs']
