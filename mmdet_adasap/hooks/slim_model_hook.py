# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Let every run take a slim checkpoint, also one that does not prune."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..checkpoint import restore_structure, structure_of
from ..integration import raise_on_all_ranks, unwrapped
from ..pruning import META_KEY, last_cut
from . import runner_state
from .adasap_hook import AdaSAPHook

ADDED = '_mmdet_adasap_adds_hook'
"""Mark of a function that is wrapped, so that it is not wrapped twice."""


class SlimModelHook(Hook):
    """Gives the model of a run the shape of a slim checkpoint, and writes it into new ones.

    A run without AdaSAPHook has it once this package is imported, so that ``custom_imports`` is
    enough to test a slim model, or to fine-tune it with any optimizer. Of other checkpoints, and
    of those that are not cut yet, it does nothing.

    Attributes:
        structure (Mapping | None): The structure of the model; None if it is dense.
    """

    # As AdaSAPHook: before hooks that load into copies of the model (EMA) or save it.
    priority = 'HIGH'

    def __init__(self) -> None:
        self.structure: Mapping | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the model, and moving averages of it, the shape that the checkpoint has.

        Raises:
            StructureError: If the checkpoint is of a slim model that this one was not cut to.
        """
        found = structure_of(checkpoint)
        if found is None or last_cut(found) is None:
            return
        starts = runner_state.is_training(runner) and not runner_state.is_resume_asked_for(runner)
        with raise_on_all_ranks():
            structure = restore_structure(
                checkpoint,
                unwrapped(runner.model),
                runner_state.averaged_models(runner),
                runner_state.optimizers_of(runner),
                starts,
            )
        self.structure = last_cut(structure)
        runner_state.after_load(runner, self.structure)
        runner.logger.info('AdaSAP: the checkpoint is slim, and the model has taken its shape')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the structure beside the weights, without which they would not be loaded again."""
        if self.structure is not None:
            checkpoint['meta'].setdefault(META_KEY, self.structure)


def add_to_every_runner() -> None:
    """Give Runners that are built from now on a SlimModelHook if they have no AdaSAPHook, once.

    mmengine has no default hook that a package can add to.

    Warns:
        RuntimeWarning: If this mmengine registers hooks in another way.
    """
    register = getattr(Runner, 'register_hooks', None)
    if register is None:
        warnings.warn(
            'this mmengine registers hooks in a way that mmdet_adasap does not know: to load a '
            'slim checkpoint put AdaSAPHook into default_hooks, or use the mmengine of '
            'requirements/onedl.txt',
            RuntimeWarning,
            stacklevel=2,
        )
        return
    if hasattr(register, ADDED):
        return

    @functools.wraps(register)
    def register_hooks(self, *args, **kwargs) -> None:
        register(self, *args, **kwargs)
        if not any(isinstance(hook, AdaSAPHook | SlimModelHook) for hook in self.hooks):
            self.register_hook(SlimModelHook())

    setattr(register_hooks, ADDED, True)
    Runner.register_hooks = register_hooks
