# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The checkpoint that a run starts from or is resumed from, and what it has to hold for that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Size, Tensor, nn
from torch.optim import Optimizer

from ..checkpoint import meta_of
from ..errors import StructureError, UnreadableCheckpointError
from ..pruning import (
    META_KEY,
    ChannelGroup,
    Importance,
    digest,
    is_cut,
    last_cut,
    uncuttable_state,
)
from .optimizer_trial import kept_keys
from .runner_state import (
    is_resume_asked_for,
    is_resumed,
    loaded_file,
    newest_if_passed_over,
    optimizers_of,
)
from .schedule import Phases
from .settings import PERTURBATION_KEYS, AdaSAPSettings

STATE_KEY = 'mmdet_adasap'
"""Where a checkpoint has what resuming needs besides the structure: 'settings' of the run,
'importance' as the criterion's state_dict, and 'holds', numbers of what mmengine saved."""
START_ANEW = 'start anew with load_from and without --resume'
"""Beside --resume load_from is dropped by mmdet's train.py, as by mmpretrain's where the config's
file has it. Where --cfg-options has it, mmpretrain's resumes from that file."""
REMEDY = f'resume from one as train.py writes it, or {START_ANEW}'


def check_is_checkpoint(checkpoint: object, filename: str) -> None:
    """Raise UnreadableCheckpointError if a file holds no dict, as one of a whole model does not.

    Args:
        checkpoint (object): As loaded from a file.
        filename (str): Where it is from, for the message.
    """
    weights = _weights(checkpoint) if isinstance(checkpoint, Mapping) else checkpoint
    if not isinstance(weights, Mapping):
        raise UnreadableCheckpointError(
            f'load_from: {filename} is not a checkpoint: it holds a {type(weights).__name__} '
            f'where tensors by name should be; take one as train.py writes it'
        )


def check_resumable(checkpoint: Mapping, runner: Runner) -> None:
    """Raise ValueError if a checkpoint lacks what training needs, before it is loaded.

    mmengine would go on without it, at other learning rates or with an optimizer that has
    forgotten its momentum.

    Raises:
        ValueError: Naming the entry that is missing or malformed.
    """
    meta = checkpoint.get('meta')
    for key in ('epoch', 'iter'):
        if not isinstance(meta, Mapping) or type(meta.get(key)) is not int or meta[key] < 0:
            raise ValueError(f'resume: meta.{key} of the checkpoint is no number; {REMEDY}')
    for key in ('message_hub', 'optimizer'):
        if not isinstance(checkpoint.get(key), Mapping):
            raise ValueError(f'resume: the checkpoint has no {key}; {REMEDY}')
    if not isinstance(checkpoint.get('ema_state_dict', {}), Mapping):
        raise ValueError(f'resume: ema_state_dict of the checkpoint is no dict; {REMEDY}')
    if runner.param_schedulers and not isinstance(checkpoint.get('param_schedulers'), list | dict):
        raise ValueError(
            'resume: the checkpoint has no param_schedulers, without which the learning rate '
            f'would start anew; train without save_param_scheduler=False, or {START_ANEW}'
        )
    optimizer = next(iter(optimizers_of(runner)), None)
    _check_optimizer_state(checkpoint['optimizer'], optimizer)
    own = checkpoint.get(STATE_KEY)
    saved = own.get('holds') if isinstance(own, Mapping) else None
    if isinstance(saved, Mapping):
        for name, count in count_states(checkpoint).items():
            if saved.get(name) != count:
                raise ValueError(
                    f'resume: the checkpoint holds {count} {name}, and was saved with '
                    f'{saved.get(name)}; {REMEDY}'
                )


def _check_optimizer_state(saved: Mapping, optimizer: Optimizer | None) -> None:
    """Raise ValueError if the state of an optimizer is malformed, or that of another kind.

    Args:
        saved (Mapping): What the checkpoint has.
        optimizer (Optimizer, optional): That of the run; None where there are several, which
            check_optim_wrapper reports, or none yet.
    """
    # Optimizers that wrap another one may write a state_dict of a layout of their own.
    if optimizer is not None and not {'state', 'param_groups'} <= optimizer.state_dict().keys():
        return
    state, groups = saved.get('state'), saved.get('param_groups')
    is_whole = isinstance(state, Mapping) and isinstance(groups, list)
    # Under a name, and not the number of a parameter, some optimizers keep a count of steps.
    of_parameters = [v for key, v in state.items() if type(key) is int] if is_whole else []
    if not is_whole or not all(isinstance(part, Mapping) for part in (*of_parameters, *groups)):
        raise ValueError(f'resume: optimizer.state or param_groups is malformed; {REMEDY}')
    if optimizer is not None:
        _check_same_optimizer(of_parameters, optimizer)


def _check_same_optimizer(states: Iterable[Mapping], optimizer: Optimizer) -> None:
    """Raise ValueError if another kind of optimizer wrote the state of a checkpoint."""
    needed = kept_keys(optimizer)
    for state in states:
        missing = sorted(needed - state.keys())
        if missing:
            raise ValueError(
                f'resume: the state of the optimizer lacks {missing[0]!r}, which '
                f'{type(optimizer).__name__} keeps; resume with the optimizer that the run was '
                f'started with'
            )


def count_states(checkpoint: Mapping) -> dict[str, int]:
    """Count what a checkpoint holds for training to go on, to see later that nothing was lost.

    Returns:
        dict[str, int]: Counts by the names that checkpoints have had for them since 0.1.
    """
    return {
        'optimizer states': len(checkpoint.get('optimizer', {}).get('state', ())),
        'param_schedulers': len(checkpoint.get('param_schedulers', ())),
    }


def check_weights(checkpoint: Mapping, model: nn.Module, starts_training: bool) -> None:
    """Raise ValueError if weights have other shapes, which mmengine only logs.

    It would go on with random ones. To start a training a few may differ, as those of a head for
    other classes do.

    Args:
        checkpoint (Mapping): As loaded from a file.
        model (nn.Module): The model, already of the shape that the checkpoint names.
        starts_training (bool): Whether a training starts from the weights; not where a run is
            tested or resumed.

    Raises:
        ValueError: If not one tensor fits the model; if most do not, or those of a slim model do
            not; or if one does not, where no training starts.
    """
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found = {
        name.removeprefix('module.'): tensor.shape
        for name, tensor in _weights(checkpoint).items()
        if isinstance(tensor, Tensor)
    }
    common = found.keys() & shapes.keys()
    misfits = sorted(name for name in common if found[name] != shapes[name])
    name = type(model).__name__
    if len(misfits) == len(common):  # also where both are 0
        raise ValueError(
            f'load_from: the checkpoint has no tensor of {name}; use the config that it was '
            f'trained with'
        )
    pairs = [(found[key], shapes[key]) for key in misfits if key.endswith('weight')]
    if misfits and (not starts_training or 2 * len(misfits) > len(common) or _is_slim(pairs)):
        first = misfits[0]
        raise ValueError(
            f'load_from: {len(misfits)} of {len(common)} tensors of the checkpoint have other '
            f'shapes than {name}, {first} {tuple(found[first])} and not {tuple(shapes[first])}; '
            f'use the config that it was trained with. If it was pruned, its meta is missing: '
            f"publish it with published_keys=['meta', 'state_dict']; a model.pth of "
            f'tools/export.py goes with the config.py beside it alone'
        )


def _is_slim(pairs: Iterable[tuple[Size, Size]]) -> bool:
    """Return whether weights have the shapes of a model that was cut.

    A head for fewer classes has fewer outputs alone. In a slim model another layer reads fewer
    inputs, too.

    Args:
        pairs (Iterable[tuple[Size, Size]]): Shapes of weights in the file and in the model, of
            those that differ.
    """
    matrices = [(a, b) for a, b in pairs if len(a) == len(b) > 1]
    return all(any(a[axis] < b[axis] for a, b in matrices) for axis in (0, 1))


def fingerprint(checkpoint: Mapping) -> str:
    """Return a digest of iteration, structure and weights, to compare between processes."""
    meta = meta_of(checkpoint)
    # Sums instead of all bytes: equal in every process that has read the same file, and quick.
    sums = [
        (name, value.double().sum().item())
        for name, value in _weights(checkpoint).items()
        if isinstance(value, Tensor)
    ]
    structure = meta.get(META_KEY)
    identity = (meta.get('iter'), structure and digest(structure), sums)
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def _weights(checkpoint: Mapping) -> Mapping:
    # A file of weights alone, as torchvision publishes them, has them at the top.
    return checkpoint.get('state_dict', checkpoint)


def check_start_without_checkpoint(runner: Runner) -> None:
    """Raise ValueError if a resumed run has no checkpoint and would ignore load_from.

    train.py --resume drops the config's load_from, and mmengine then starts from random weights.
    Where no load_from is lost, a warning says that the weights are random.

    Raises:
        ValueError: If the file of the config has a load_from.
    """
    if not is_resume_asked_for(runner):
        # mmdet's and mmpretrain's configs load a backbone by init_cfg=dict(type='Pretrained').
        if 'Pretrained' not in str(runner.cfg.get('model')):
            runner.logger.warning(
                'load_from=None: AdaSAP prunes a model from its random weights, of which no '
                'channel is more important than another; name the checkpoint of a dense training '
                'in load_from'
            )
        return
    filename = getattr(runner.cfg, 'filename', None)
    if filename and Path(filename).is_file():
        config = Config.fromfile(filename, import_custom_modules=False)
        if config.get('load_from'):
            raise ValueError(
                f'resume: {runner.work_dir} has no checkpoint to go on from, and with --resume '
                f'load_from={config.load_from!r} is left out; {START_ANEW}'
            )
    runner.logger.warning(
        f'resume: {runner.work_dir} has no checkpoint to go on from, so the run starts anew, '
        f'without load_from'
    )


def check_start(
    runner: Runner,
    settings: AdaSAPSettings,
    phases: Phases,
    structure: Mapping | None,
    state: Mapping | None,
) -> None:
    """Raise ValueError if a run cannot start or go on from its checkpoint; warn if it hardly can.

    Args:
        runner (Runner): The run.
        settings (AdaSAPSettings): The settings of this run.
        phases (Phases): Its phases.
        structure (Mapping, optional): The structure of the checkpoint; None if it has none.
        state (Mapping, optional): What the checkpoint holds under :data:`STATE_KEY`, {} if it
            holds nothing there; None if no checkpoint was loaded.

    Raises:
        ValueError: If ``load_from`` names a checkpoint that is not cut yet, or is as small as
            the target, or a resumed one has not the structure that its iteration should have.
    """
    if not is_resumed(runner):
        if structure is not None:
            _check_pruned_start(settings, structure, loaded_file(runner))
        return
    for entry in uncuttable_state(runner.optim_wrapper.optimizer):
        raise ValueError(f'resume: the checkpoint gives the optimizer {entry}; {REMEDY}')
    if state is None:
        return
    passed_over = newest_if_passed_over(runner)
    if passed_over is not None:
        runner.logger.warning(
            f'resume: the run goes on from {loaded_file(runner)} and not from {passed_over}, the '
            f'newest of its own folder; if you did not mean that, resume without load_from in '
            f"--cfg-options, which mmpretrain's train.py takes before --resume"
        )
    _check_phase(settings, phases, structure, runner)
    for line in _compare_settings(settings, structure, state):
        runner.logger.warning(line)
    by_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if by_epochs and runner.iter % len(runner.train_dataloader):
        runner.logger.warning(
            'resume: mmengine does not restore the order of the data within an epoch, so '
            'this run will not equal an uninterrupted one; save checkpoints by epoch'
        )


def _check_pruned_start(settings: AdaSAPSettings, structure: Mapping, load_from: str) -> None:
    if structure['keep'] != (last_cut(structure) or {}).get('keep', {}):
        raise ValueError(
            f'load_from: {load_from} was written while channels were being removed, before its '
            f'model was cut; go on with --resume {load_from}, or start from a checkpoint of '
            f'another phase'
        )
    reached = structure['reached'].get(settings.resource)
    if structure['keep'] and reached is not None and reached <= settings.fraction:
        raise ValueError(
            f'load_from: {load_from} was already pruned to {settings.resource} {reached:.4g}, '
            f'within target=dict({settings.resource}={settings.fraction:g}); targets count from '
            f'the dense model: set a lower one, or start from a dense checkpoint'
        )


def _check_phase(
    settings: AdaSAPSettings, phases: Phases, structure: Mapping | None, runner: Runner
) -> None:
    iteration = runner.iter
    phase = phases.phase(iteration)
    if structure is None and iteration > phases.warmup_end:
        raise ValueError(
            f'resume: {loaded_file(runner)} is at iteration {iteration}, in the phase {phase!r}, '
            f'but holds no pruned structure; resume from one that was written with AdaSAPHook in '
            f'the config, or {START_ANEW}'
        )
    if structure is not None and is_cut(structure) != (phase == 'finetune'):
        raise StructureError(
            f'resume: the checkpoint was written in the phase {structure["phase"]!r}, but '
            f'warmup={settings.warmup} and prune={settings.prune} put iteration {iteration} into '
            f'{phase!r}; resume with the settings that the run was started with'
        )


def _compare_settings(
    settings: AdaSAPSettings, structure: Mapping | None, state: Mapping
) -> list[str]:
    """Compare the settings with those that a resumed run was started with.

    Returns:
        list[str]: Warnings of settings that differ, and may.

    Raises:
        StructureError: If one differs that must not.
        ValueError: If the checkpoint does not have them.
    """
    saved = state.get('settings')
    if not isinstance(saved, Mapping):
        raise ValueError(
            f'resume: the checkpoint does not say with what settings of AdaSAPHook the run was '
            f'started; {REMEDY}'
        )
    # There was one way to choose before these settings.
    saved = {'solver': 'ranked', 'objective': 'sum', **saved}
    if structure is not None:
        saved['target'] = structure['target']
    warnings = []
    for key, value in settings.to_dict().items():
        if key == 'max_pruning_ratio' and key not in saved and value < 1:
            warnings.append(
                f'resume: the run was started by a version without max_pruning_ratio and goes on '
                f'with {value}; set max_pruning_ratio=1.0 for a run as it was started'
            )
        if saved.get(key, value) == value:
            continue
        if key not in PERTURBATION_KEYS:
            raise StructureError(
                f'resume: the run was started with {key}={saved[key]!r} and goes on with '
                f'{key}={value!r}; resume with the settings that it was started with'
            )
        warnings.append(
            f'resume: the run was started with {key}={saved[key]} and goes on with '
            f'{key}={value}; it will not equal an uninterrupted one'
        )
    return warnings


def restore_importance(importance: Importance, state: Mapping, groups: list[ChannelGroup]) -> None:
    """Give a criterion back what it had seen when the checkpoint was written.

    Args:
        importance (Importance): The criterion.
        state (Mapping): What the checkpoint holds under :data:`STATE_KEY`.
        groups (list[ChannelGroup]): The groups of channels that it scores.

    Raises:
        StructureError: If a criterion of another kind, or of other groups, wrote it.
    """
    try:
        importance.load_state_dict(state.get('importance'), groups)
    except (KeyError, TypeError, ValueError) as error:
        raise StructureError(
            f'resume: {STATE_KEY}.importance of the checkpoint is not what '
            f'{type(importance).__name__} wrote ({error!r}); resume from another one'
        ) from error
