# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.optim import Optimizer

from ..checkpoint.restore import load_structure
from ..errors import StructureError
from ..integration.distributed import (
    check_same,
    check_wrapper,
    from_rank_0,
    raise_on_all_ranks,
    rewrap_model,
    unwrapped,
)
from ..optim import AdaSAPOptimWrapper
from ..optim.gradients import average_gradients, optimizer_parameters
from ..optim.replay import preserve_rng_state
from ..pruning import Pruner, check_target
from ..pruning.groups import NOT_TRAINED
from ..pruning.structure import META_KEY, PHASES, last_cut
from ..registry import IMPORTANCES, PERTURBATIONS, build, names
from .preflight import at_least, check_data, check_optim_wrapper, check_runner, phases_of_run
from .resume import (
    RADII,
    STATE_KEY,
    check_not_foreign,
    check_nothing_left_out,
    check_resumable,
    check_start,
    contents,
    described,
    fingerprint,
    settings,
    warn_of_random_weights,
)
from .runner_state import (
    add_gradient_observer,
    averaged_models,
    is_resumed,
    rebind_ema,
    remove_gradient_observer,
    reset_best_score,
    sample_forward,
)
from .schedule import SCHEDULES, Phases
from .training_log import LossRatioWatch, cut_table, layer_shapes

ONE_PASS = dict(mean_rho=0.0, eps_ratio=0.0, loss_ratio=1.0)


@HOOKS.register_module()
class AdaSAPHook(Hook):
    """Adaptive Sharpness-Aware Pruning (arXiv:2306.14306, algorithm 1) of any model.

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
        warmup (int): Epochs (or iterations) of the first phase, 0 or more.
        prune (int): Epochs (or iterations) of the second phase; the rest fine-tunes.
        target (dict): What is to remain of the dense model: ``dict(params=0.4)``, or
            ``dict(flops=0.5)`` of the multiply-accumulates for the first validation image. Of
            the dense one also where a pruned model is pruned again.
        perturbation (dict, optional): Perturbation of warm-up and prune phase. Defaults to
            ``dict(type='AdaptivePerturbation')``.
        finetune (dict, optional): Perturbation of the third phase. Defaults to
            ``dict(type='UniformPerturbation', rho=0.1, scope='layer', asam=True,
            parameters='weights')``.
        importance (dict): Criterion of removal. Defaults to
            ``dict(type='MagnitudeImportance', p=2)``.
        interval (int): Iterations from one pruning event to the next. Defaults to 30.
        schedule (str): How the target is approached, 'exponential' or 'linear'. Defaults to
            'exponential'.
        round_to (int): Channels that a layer keeps are a multiple of it. Defaults to 8.
        by_epoch (bool): Whether ``warmup`` and ``prune`` count epochs. Defaults to True.

    Raises:
        ValueError: If a setting is not valid; the message begins with its key.
    """

    # Before hooks that load into copies of the model (EMA) or save it: the shape has to be right.
    priority = 'HIGH'

    def __init__(
        self,
        warmup: int,
        prune: int,
        target: Mapping[str, float],
        perturbation: Mapping | None = dict(type='AdaptivePerturbation'),
        finetune: Mapping | None = dict(
            type='UniformPerturbation', rho=0.1, scope='layer', asam=True, parameters='weights'
        ),
        importance: Mapping = dict(type='MagnitudeImportance', p=2),
        interval: int = 30,
        schedule: str = 'exponential',
        round_to: int = 8,
        by_epoch: bool = True,
    ) -> None:
        self.warmup = at_least('warmup', warmup, 0)
        self.prune = at_least('prune', prune, 1)
        self.interval = at_least('interval', interval, 1)
        self.round_to = at_least('round_to', round_to, 1)
        if not isinstance(schedule, str) or schedule not in SCHEDULES:
            raise ValueError(f'schedule={schedule!r} is unknown; use one of {list(SCHEDULES)}')
        if not isinstance(by_epoch, bool):
            raise ValueError(f'by_epoch={by_epoch!r} must be True or False')
        self.resource, self.fraction = check_target(target)
        self.schedule = schedule
        self.by_epoch = by_epoch
        self.target = dict(target)
        self.perturbation = build(PERTURBATIONS, perturbation, 'perturbation')
        self.finetune = build(PERTURBATIONS, finetune, 'finetune')
        self.importance = build(IMPORTANCES, importance, 'importance')
        if self.importance is None:
            raise ValueError(f'importance=None; name one of {names(IMPORTANCES)}')
        self.pruner: Pruner | None = None
        self.structure: dict | None = None
        self.phases: Phases | None = None
        self.start_fraction = 1.0
        """What there was of the dense model when this run began."""
        self.phase = PHASES[0]
        self._ratios: LossRatioWatch | None = None
        self._state: Mapping = {}
        self.has_loaded = False

    # Training

    def before_run(self, runner: Runner) -> None:
        """Check that the run is one that the hook can follow."""
        check_runner(self, runner)

    def before_train(self, runner: Runner) -> None:
        """Check the settings against the run, find the channels, and enter the phase."""
        check_wrapper(runner)
        # As the training loop will: some backbones freeze their stages there and not before.
        runner.model.train()
        with raise_on_all_ranks():
            self.phases = phases_of_run(self, runner)
            check_optim_wrapper(self, runner)
            if not self.has_loaded:
                check_nothing_left_out(runner)
                warn_of_random_weights(runner)
            check_start(self, runner, self._state)
            check_data(runner)
            if not is_resumed(runner):
                self.structure, self._state = None, {}  # the model remembers what it was cut to
            if self.phases.phase(runner.iter) != 'finetune':
                self._find_channels(runner)
        if self.pruner is not None:
            check_same('the channels that were found', self.pruner.digest())
        self._enter(runner, runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Prune when an event is due, cut when the prune phase ends, log where we are."""
        done = runner.iter + 1
        event = self.phases.event(done)
        if event is not None:
            fraction = self._fraction(event)
            with raise_on_all_ranks():
                kept = self.pruner.select(fraction)
            # Rounding may differ from device to device; the choice must not.
            kept = from_rank_0(kept)
            self.pruner.remove(kept, _optimizers(runner), averaged_models(runner))
            self._leave_out_masked(runner)
        if done == self.phases.prune_end:
            self._cut(runner)
        self._log(runner, done)
        if done in (self.phases.warmup_end, self.phases.prune_end):
            self._enter(runner, done)

    def after_train(self, runner: Runner) -> None:
        """Say so if training ends before the cut, as early stopping can make it."""
        if self.pruner is not None:
            runner.logger.warning(
                f'training has ended after {runner.iter} iterations, in the phase {self.phase!r}: '
                f'the model is not cut, which would be due after {self.phases.prune_end}'
            )

    def _enter(self, runner: Runner, done: int) -> None:
        phase = self.phase = self.phases.phase(done)
        perturbation = self.finetune if phase == 'finetune' else self.perturbation
        if isinstance(runner.optim_wrapper, AdaSAPOptimWrapper):
            runner.optim_wrapper.perturbation = perturbation
        if phase == 'prune' and self.importance.needs_gradients:
            self._watch_gradients(runner)
        if phase != 'finetune':
            self._leave_out_masked(runner)
        elif perturbation is not None:
            perturbation.keep = {}  # it may be the one that the pruning phase had
        name = 'one pass a step' if perturbation is None else type(perturbation).__name__
        runner.logger.info(f'AdaSAP phase {PHASES.index(phase)} ({phase}): {name}')
        self._ratios = None
        if perturbation is not None:
            key = 'finetune' if phase == 'finetune' else 'perturbation'
            end = self.phases.end(phase, runner.max_iters)
            self._ratios = LossRatioWatch(phase, key, perturbation, done, end)

    def _find_channels(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        with preserve_rng_state(model):
            forward = sample_forward(runner)
            self.pruner = Pruner(model, forward, self.target, self.importance, self.round_to)
        self.start_fraction = self.pruner.remaining()
        if self.structure is not None:
            self.pruner.restore(self.structure, _optimizers(runner))
            self._restore_importance()
        channels = self.pruner.channels
        names = sorted({ref.name for ref in channels.frozen.get(NOT_TRAINED, [])})
        if names:
            runner.logger.warning(
                f'AdaSAP leaves {len(names)} layers whole because they are not trained, '
                f'{names[0]} to {names[-1]}'
            )
        parameters = dict(model.named_parameters())
        for name, reason in channels.excluded.items():
            runner.logger.warning(f'AdaSAP leaves {name or "the model"} whole: {reason}')
        unseen = [name for name in channels.unused_parameters if parameters[name].dim() > 1]
        if unseen:
            runner.logger.warning(
                f'AdaSAP leaves {", ".join(unseen)} whole because raw outputs do not depend on '
                f'them; if they read channels that are cut, training will stop after the cut'
            )
        runner.logger.info(
            f'AdaSAP found {len(channels.groups)} groups of {channels.group_sizes.sum()} channels; '
            f'{self.phases.events} pruning events lead from {self.resource} '
            f'{self.start_fraction:g} to {self.fraction:g} of the dense model'
        )

    def _restore_importance(self) -> None:
        state = self._state.get('importance')
        try:
            self.importance.load_state_dict(state, self.pruner.channels.groups)
        except (KeyError, TypeError, ValueError) as error:
            raise StructureError(
                f'resume: {STATE_KEY}.importance of the checkpoint is not what '
                f'{type(self.importance).__name__} wrote ({error!r}); resume from another one'
            ) from error

    def _cut(self, runner: Runner) -> None:
        dense = layer_shapes(unwrapped(runner.model))
        self._stop_watching(runner)
        with raise_on_all_ranks(), preserve_rng_state(unwrapped(runner.model)):
            self.structure = self.pruner.cut(_optimizers(runner), averaged_models(runner))
        check_same('the structures', self.structure['digest'])
        rebind_ema(runner)
        rewrap_model(runner)
        runner.logger.info(cut_table(unwrapped(runner.model), dense, self.structure))
        reset_best_score(runner)
        self.pruner = None

    def _fraction(self, event: int) -> float:
        """Fraction of the dense model that is to remain after an event."""
        return self.phases.fraction(self.fraction, event, self.start_fraction)

    def _leave_out_masked(self, runner: Runner) -> None:
        if self.perturbation is not None:
            self.perturbation.keep = self.pruner.masks.neuron_masks()

    def _watch_gradients(self, runner: Runner) -> None:
        # From now on each micro-batch is averaged over the processes on its own.
        average_gradients(optimizer_parameters(runner.optim_wrapper.optimizer))
        if isinstance(runner.optim_wrapper, AdaSAPOptimWrapper):
            runner.optim_wrapper.add_clean_gradient_observer(self.pruner.observe)
        else:
            add_gradient_observer(runner.optim_wrapper, self.pruner.observe)

    def _stop_watching(self, runner: Runner) -> None:
        if not self.importance.needs_gradients:
            return
        if isinstance(runner.optim_wrapper, AdaSAPOptimWrapper):
            runner.optim_wrapper.remove_clean_gradient_observer(self.pruner.observe)
        else:
            remove_gradient_observer(runner.optim_wrapper)

    def _log(self, runner: Runner, done: int) -> None:
        hub = runner.message_hub
        hub.update_scalar('train/phase', PHASES.index(self.phases.phase(done - 1)))
        stats = getattr(runner.optim_wrapper, 'last_stats', None)
        said = self._ratios.add(stats['loss_ratio']) if stats and self._ratios else None
        if said is not None:
            runner.logger.log(*said)
        # A step of one pass is one with a radius of 0.
        stats = stats or ONE_PASS
        for key in ONE_PASS:
            hub.update_scalar(f'train/{key}', stats[key])
        left = self.pruner.remaining() if self.pruner else self.structure['reached'][self.resource]
        fraction = self._fraction(self.phases.events_until(done))
        hub.update_scalar(f'train/{self.resource}_target', fraction)
        hub.update_scalar(f'train/{self.resource}_left', left)

    # Checkpoints

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the structure beside the weights, and what the criterion has seen so far."""
        if self.pruner is not None:
            checkpoint['meta'][META_KEY] = self.pruner.structure(self.phase)
        elif self.structure is not None:
            checkpoint['meta'][META_KEY] = self.structure
        if self.phases is not None:
            checkpoint[STATE_KEY] = {
                'settings': settings(self) | {key: described(getattr(self, key)) for key in RADII},
                'importance': self.importance.state_dict() if self.pruner else {},
                'holds': contents(checkpoint),
            }

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Give the model, and moving averages of it, the shape that the checkpoint has."""
        model = unwrapped(runner.model)
        with raise_on_all_ranks():
            if runner._resume:
                check_resumable(checkpoint, runner)
            self.structure = load_structure(
                checkpoint, model, averaged_models(runner), _optimizers(runner)
            )
            check_not_foreign(checkpoint, runner)
            loaded = fingerprint(checkpoint)
        check_same('the checkpoints', loaded)
        rebind_ema(runner)
        if self.structure is not None and last_cut(self.structure) is not None:
            rewrap_model(runner)
        state = checkpoint.get(STATE_KEY)
        self._state = state if isinstance(state, Mapping) else {}
        self.has_loaded = True


def _optimizers(runner: Runner) -> list[Optimizer]:
    """The optimizer, where there is one already."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    return [optimizer] if isinstance(optimizer, Optimizer) else []
