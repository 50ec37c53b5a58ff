# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from __future__ import annotations

from collections.abc import Mapping

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoint import restore_structure
from ..integration import (
    broadcast_from_rank_0,
    check_same_on_all_ranks,
    check_wrapper,
    raise_on_all_ranks,
    unwrapped,
)
from ..optim import AdaSAPOptimWrapper, observe_clean_gradients, preserve_rng_state
from ..pruning import META_KEY, PHASES, Pruner, check_states
from ..registry import check_arguments
from . import preflight, resume, runner_state, saved_state, training_log, training_plan
from .collapse_watch import CollapseWatch
from .latency_target import LatencyTiming, log_off_step
from .model_copies import check_no_copy
from .runner_state import averaged_models, optimizers_of
from .schedule import Phases
from .settings import NEEDED, AdaSAPSettings
from .unread_options import check_unread_options


@HOOKS.register_module()
class AdaSAPHook(Hook):
    """Adaptive Sharpness-Aware Pruning (arXiv:2306.14306) of any model.

    1. Warm-up: the loss is made flat, most of all where channels matter least.
    2. Prune: every ``interval`` iterations the least important channels are set to zero. When
       the phase ends they are cut off the model, its optimizer state and its moving averages.
    3. Fine-tune: the slim model trains on with one radius for all weights.

    Put it under ``default_hooks``, which merges over any base config. It gives the
    perturbations to :class:`~mmdet_adasap.optim.AdaSAPOptimWrapper` phase by phase; with
    ``perturbation=None, finetune=None`` it prunes under any OptimWrapper. The pruned shape
    travels in ``checkpoint['meta']['mmdet_adasap']`` and is taken up before weights are
    loaded, so that the unpruned config tests and resumes pruned checkpoints. A run whose
    ``load_from`` is a pruned checkpoint prunes that one further.

    In a distributed run gradients are averaged over the processes before a criterion sees them,
    rank 0 chooses for all, and the cut model gets a new MMDistributedDataParallel.

    Args:
        *args: Those of :class:`AdaSAPSettings`: ``warmup``, ``prune``, ``target``, and others
            that have a default.
        **kwargs: The same by name, as a config has them.

    Attributes:
        settings (AdaSAPSettings): The settings, checked.
        phases (Phases | None): The phases in iterations, once the run is known.
        phase (str): The phase that the run is in.
        pruner (Pruner | None): What masks and cuts the model, from the first iteration to the cut.
        structure (dict | None): What is kept of the dense model: read from a checkpoint, then
            that of the cut.
        start_fractions (dict[str, float]): What there was of the dense model when this run
            began, by what the target limits.

    Raises:
        SettingError: If a setting is unexpected or missing.
        ValueError: If one is not valid; the message begins with its key.

    Examples:
        >>> default_hooks = dict(
        ...     adasap=dict(type='AdaSAPHook', warmup=10, prune=20, target=dict(params=0.4))
        ... )
    """

    # Before hooks that load into copies of the model (EMA) or save it: the shape has to be right.
    priority = 'HIGH'

    def __init__(self, *args, **kwargs) -> None:
        check_arguments('AdaSAPHook', AdaSAPSettings, args, kwargs, NEEDED)
        self.settings = AdaSAPSettings(*args, **kwargs)
        self.phases: Phases | None = None
        self.phase = PHASES[0]
        self.pruner: Pruner | None = None
        self.structure: dict | None = None
        self.start_fractions: dict[str, float] = {}
        self.has_loaded = False
        self._loaded_state: Mapping = {}
        self._frozen: list[str] = []
        self._untrained: frozenset[str] = frozenset()
        self._watch: training_log.LossRatioWatch | None = None
        self._collapse: CollapseWatch | None = None
        self._has_forecast = False
        self._timing: LatencyTiming | None = None

    def before_run(self, runner: Runner) -> None:
        """Check that the run is one that the hook can follow."""
        preflight.check_runner(runner, runner.hooks.index(self))
        check_unread_options(runner.cfg, type(self).__name__)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the model, and moving averages of it, the shape that the checkpoint has."""
        model = unwrapped(runner.model)
        is_resuming = runner_state.is_resume_asked_for(runner)
        with raise_on_all_ranks():
            resume.check_is_checkpoint(checkpoint, runner_state.loaded_file(runner))
            if is_resuming:
                resume.check_resumable(checkpoint, runner)
            starts = runner_state.is_training(runner) and not is_resuming
            self.structure = restore_structure(
                checkpoint, model, averaged_models(runner), optimizers_of(runner), starts
            )
            resume.check_weights(checkpoint, model, starts)
            loaded = resume.fingerprint(checkpoint)
        check_same_on_all_ranks('the checkpoints', loaded)
        runner_state.after_load(runner, self.structure)
        state = checkpoint.get(saved_state.STATE_KEY)
        self._loaded_state = state if isinstance(state, Mapping) else {}
        self.has_loaded = True

    def before_train(self, runner: Runner) -> None:
        """Check the settings against the run, find the channels, and enter the phase."""
        check_wrapper(runner)
        # As the training loop will: some backbones freeze their stages there and not before.
        runner.model.train()
        with raise_on_all_ranks():
            self.phases = preflight.phases_of_run(self.settings, runner)
            preflight.check_optim_wrapper(self.settings, runner.optim_wrapper)
            preflight.check_single_hook(runner.hooks, type(self))
            if not self.has_loaded:
                resume.check_start_without_checkpoint(runner)
            state = self._loaded_state if self.has_loaded else None
            resume.check_start(runner, self.settings, self.phases, self.structure, state)
            preflight.check_data(runner)
            if not runner_state.is_resumed(runner):
                # A model that is pruned again remembers itself what it was cut to.
                self.structure, self._loaded_state = None, {}
            saved_state.restore_radii(self.settings, self._loaded_state)
            if self.phases.phase(runner.iter) != 'finetune':
                self._find_channels(runner)
        if self.pruner is not None:
            check_same_on_all_ranks('the channels that were found', self.pruner.digest())
        self._enter_phase(runner, runner.iter)

    def _find_channels(self, runner: Runner) -> None:
        settings, model = self.settings, unwrapped(runner.model)
        with preserve_rng_state(model):
            check_no_copy(model, lambda: runner_state.running_modules(runner))
            forward = runner_state.sample_forward(runner, settings.target.image_size)
            with runner_state.frozen_as_at_the_start(model, self._loaded_state) as frozen:
                self._frozen = frozen
                self.pruner = Pruner(
                    model,
                    forward,
                    settings.target,
                    settings.importance,
                    settings.round_to,
                    settings.max_pruning_ratio,
                    settings.solver,
                    settings.objective,
                )
        self.start_fractions = {r: self.pruner.remaining(r) for r in self.pruner.targets}
        self._timing = LatencyTiming(settings.target, runner.logger)
        channels = self.pruner.channels
        self._collapse = CollapseWatch(settings.interval)
        if self.structure is not None:
            self.pruner.restore(self.structure, optimizers_of(runner))
            state, groups = self._loaded_state, channels.groups
            saved_state.restore_importance(settings.importance, state, groups)
            saved_state.restore_timing(self.pruner, state)
        training_log.log_channels(runner.logger, channels, model)
        training_plan.log_plan(runner, settings, self.phases, self.pruner)
        # One that reads gradients has seen none, and one of a user's own may fail without them.
        if not settings.importance.needs_gradients:
            self._has_forecast = training_plan.log_forecast(runner.logger, self.pruner)

    def _enter_phase(self, runner: Runner, done: int) -> None:
        phase = self.phase = self.phases.phase(done)
        key, perturbation = self.settings.perturbation_of(phase)
        if isinstance(runner.optim_wrapper, AdaSAPOptimWrapper):
            runner.optim_wrapper.perturbation = perturbation
        if phase == 'prune' and self.settings.importance.needs_gradients:
            observe_clean_gradients(runner.optim_wrapper, self.pruner.observe)
        if phase != 'finetune':
            self._exclude_masked_channels()
        elif perturbation is not None:
            perturbation.keep = {}  # it may be the one that the pruning phase had
        name = 'one pass a step' if perturbation is None else type(perturbation).__name__
        runner.logger.info(f'AdaSAP phase {PHASES.index(phase)} ({phase}): {name}')
        self._watch = None
        if perturbation is not None:
            end = self.phases.end(phase, runner.max_iters)
            self._watch = training_log.LossRatioWatch(phase, key, perturbation, done, end)

    def _exclude_masked_channels(self) -> None:
        """Let ε leave channels alone that are zero, and the ranking of radii, too."""
        if self.settings.perturbation is not None:
            self.settings.perturbation.keep = self.pruner.masks.neuron_masks()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Prune when an event is due, cut when the prune phase ends, log where we are."""
        done = runner.iter + 1
        warning = self._collapse.add(outputs) if self._collapse else None
        if warning is not None:
            runner.logger.warning(warning)
        if self.pruner is not None:
            self.pruner.masks.hold()
        event = self.phases.event(done)
        if event is not None:
            self._prune(runner, event)
        if done == self.phases.prune_end:
            self._cut(runner)
        self._log(runner, done)
        if done in (self.phases.warmup_end, self.phases.prune_end):
            self._enter_phase(runner, done)

    def _prune(self, runner: Runner, event: int) -> None:
        self._untrained = training_log.log_untrained(
            runner.logger, self.pruner.untrained_layers(), self._untrained
        )
        leads, kept, measured = is_main_process(), None, None
        with raise_on_all_ranks():
            check_states(optimizers_of(runner))  # now rather than at the cut
            if not self._has_forecast:
                self._has_forecast = training_plan.log_forecast(runner.logger, self.pruner)
            # The others would write files and disturb the timing, for nothing.
            if leads:
                is_last = event == self.phases.events
                kept, measured = self._timing.select(
                    self.pruner, self._targets_after(event), event == 1, is_last
                )
        # Rounding may differ from device to device, and clocks do; the choice must not.
        limits = self.pruner.limits
        kept, measured, limits.correction = broadcast_from_rank_0(
            (kept, measured, limits.correction)
        )
        self.pruner.remove(kept, optimizers_of(runner), averaged_models(runner), measured)
        self._collapse.start_event(event, self.pruner)
        self._exclude_masked_channels()

    def _cut(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        dense = training_log.layer_shapes(model)
        if self.settings.importance.needs_gradients:
            runner.optim_wrapper.remove_clean_gradient_observer(self.pruner.observe)
        with raise_on_all_ranks(), preserve_rng_state(model):
            self.structure = self.pruner.cut(optimizers_of(runner), averaged_models(runner))
        check_same_on_all_ranks('the structures', self.structure['digest'])
        log_off_step(runner.logger, self.pruner)
        runner.logger.info(training_log.cut_table(model, dense, self.structure))
        runner_state.after_cut(runner)
        self.pruner = None

    def _targets_after(self, event: int) -> dict[str, float]:
        """Return the fractions of the dense model that are to remain after an event."""
        target = self.settings.target
        dense = self.pruner.dense if self.pruner else self.structure['dense']
        starts = self.start_fractions
        return {
            r: self.phases.fraction(target.fraction(r, dense), event, starts.get(r, 1.0))
            for r in target.resources
        }

    def _log(self, runner: Runner, done: int) -> None:
        remaining = {}
        for resource, target in self._targets_after(self.phases.events_until(done)).items():
            remaining[f'{resource}_target'] = target
            remaining[f'{resource}_left'] = (
                self.pruner.remaining(resource)
                if self.pruner
                else self.structure['reached'][resource]
            )
        training_log.log_iteration(runner, self.phase, self._watch, remaining)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the structure beside the weights, and what the criterion has seen so far."""
        if self.pruner is not None:
            checkpoint['meta'][META_KEY] = self.pruner.structure(self.phase)
        elif self.structure is not None:
            checkpoint['meta'][META_KEY] = self.structure
        if self.phases is not None:
            checkpoint[saved_state.STATE_KEY] = {
                'settings': self.settings.to_dict(),
                'importance': self.settings.importance.state_dict() if self.pruner else {},
                'holds': resume.count_states(checkpoint),
                'frozen': self._frozen,
                'radii': saved_state.radii_of(self.settings),
            }
            if self.pruner is not None:
                checkpoint[saved_state.STATE_KEY].update(
                    correction=self.pruner.limits.correction, measured=self.pruner.measured
                )

    def after_train(self, runner: Runner) -> None:
        """Say what to run next; warn if training ends before the cut, as early stopping can."""
        if self.pruner is not None:
            runner.logger.warning(
                f'training has ended after {runner.iter} iterations, in the phase {self.phase!r}: '
                f'the model is not cut, which would be due after {self.phases.prune_end}'
            )
        elif self.structure is not None:
            structure = self.structure
            left = training_plan.amounts_left(structure['reached'], structure.get('latency'))
            runner.logger.info(
                f'AdaSAP is done: {left} of the dense model are left; '
                f'{training_plan.next_steps(runner)}'
            )
