# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The checkpoint that a run starts or goes on from: what it holds, and what it lacks for that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.optim import Optimizer

from ..errors import StructureError
from ..integration.distributed import unwrapped
from ..pruning.slicing import mismatched_state
from ..pruning.structure import META_KEY, digest, is_cut, last_cut
from .preflight import stepped_once
from .runner_state import is_resumed

if TYPE_CHECKING:
    from .adasap_hook import AdaSAPHook

STATE_KEY = 'mmdet_adasap'
"""Where a checkpoint has what resuming needs besides the structure: 'settings' of the run,
'importance' as the criterion's state_dict, and 'holds', numbers of what mmengine saved."""
REMEDY = 'resume from one as train.py writes it, or start anew with load_from'
RADII = ('perturbation', 'finetune')
"""Settings that may change when a run is resumed."""


def settings(hook: AdaSAPHook) -> dict:
    """What has to stay the same when a run is resumed, as plain data."""
    keys = ('warmup', 'prune', 'by_epoch', 'interval', 'schedule', 'round_to', 'target')
    values = {key: getattr(hook, key) for key in keys}
    return {**values, 'importance': described(hook.importance)}


def described(part: object) -> dict | None:
    """A criterion or a perturbation as plain data: its type and what it was built with."""
    if part is None:
        return None
    arguments = {
        key: value
        for key, value in sorted(vars(part).items())
        if not key.startswith('_') and isinstance(value, bool | int | float | str | None)
    }
    return {'type': type(part).__name__, **arguments}


def check_start(hook: AdaSAPHook, runner: Runner, state: Mapping) -> None:
    """Refuse a checkpoint that the run cannot start or go on from; warn of one it can hardly.

    Args:
        hook (AdaSAPHook): The hook, its structure loaded.
        runner (Runner): The run.
        state (Mapping): What the checkpoint holds for the hook beside the structure.

    Raises:
        ValueError: If ``load_from`` names a checkpoint that is not cut yet, or is as small as
            the target, or a resumed one has not the structure that its iteration should have.
    """
    structure, phase = hook.structure, hook.phases.phase(runner.iter)
    if not is_resumed(runner):
        if structure is not None:
            _check_pruned_start(hook, structure, runner._load_from or 'what was loaded')
        return
    for key, shape, expected in mismatched_state(runner.optim_wrapper.optimizer):
        raise ValueError(
            f'resume: {key} of the optimizer has the shape {shape} and its parameter {expected}; '
            f'resume from a checkpoint as train.py writes it, or start anew with load_from'
        )
    if not hook.has_loaded:
        return  # there was nothing to resume from
    if structure is None and runner.iter > hook.phases.warmup_end:
        raise ValueError(
            f'resume: the checkpoint is at iteration {runner.iter}, in the phase {phase!r}, but '
            f'holds no pruned structure; resume from one that was written with AdaSAPHook in '
            f'the config, or start anew with load_from'
        )
    if structure is not None and is_cut(structure) != (phase == 'finetune'):
        raise StructureError(
            f'resume: the checkpoint was written in the phase {structure["phase"]!r}, but '
            f'warmup={hook.warmup} and prune={hook.prune} put iteration {runner.iter} into '
            f'{phase!r}; resume with the settings that the run was started with'
        )
    started_with = state.get('settings')
    if not isinstance(started_with, Mapping):
        raise ValueError(
            f'resume: the checkpoint does not say with what settings of AdaSAPHook the run was '
            f'started; {REMEDY}'
        )
    started_with = {**started_with}
    if structure is not None:
        started_with['target'] = structure['target']
    for key, value in settings(hook).items():
        if started_with.get(key, value) != value:
            raise StructureError(
                f'resume: the run was started with {key}={started_with[key]!r} and goes on with '
                f'{key}={value!r}; resume with the settings that it was started with'
            )
    for key in RADII:
        value = described(getattr(hook, key))
        if started_with.get(key, value) != value:
            runner.logger.warning(
                f'resume: the run was started with {key}={started_with[key]} and goes on with '
                f'{key}={value}; it will not equal an uninterrupted one'
            )
    epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if epochs and runner.iter % len(runner.train_dataloader):
        runner.logger.warning(
            'resume: mmengine does not restore the order of the data within an epoch, so '
            'this run will not equal an uninterrupted one; save checkpoints by epoch'
        )


def _check_written_by_this_kind(states: Iterable[Mapping], optimizer: Optimizer) -> None:
    """Refuse optimizer state that another optimizer wrote."""
    trial = stepped_once(optimizer)
    needed = next(iter(trial.state.values()), {}).keys() if trial else ()
    for state in states:
        missing = sorted(needed - state.keys())
        if missing:
            raise ValueError(
                f'resume: the state of the optimizer lacks {missing[0]!r}, which '
                f'{type(optimizer).__name__} keeps; resume with the optimizer that the run was '
                f'started with'
            )


def _check_pruned_start(hook: AdaSAPHook, structure: Mapping, load_from: str) -> None:
    if structure['keep'] != (last_cut(structure) or {}).get('keep', {}):
        raise ValueError(
            f'load_from: {load_from} was written while channels were being removed, before its '
            f'model was cut; go on with resume=True, or start from a checkpoint of another phase'
        )
    reached = structure['reached'].get(hook.resource)
    if structure['keep'] and reached is not None and reached <= hook.fraction:
        raise ValueError(
            f'load_from: {load_from} was already pruned to {hook.resource} {reached:.4g}, within '
            f'target=dict({hook.resource}={hook.fraction:g}); targets count from the dense model: '
            f'set a lower one, or start from a dense checkpoint'
        )


def contents(checkpoint: Mapping) -> dict[str, int]:
    """How much a checkpoint holds of what training goes on from."""
    return {
        'optimizer states': len(checkpoint.get('optimizer', {}).get('state', ())),
        'param_schedulers': len(checkpoint.get('param_schedulers', ())),
    }


def check_resumable(checkpoint: Mapping, runner: Runner) -> None:
    """Refuse to go on from a checkpoint without what training needs, before it is loaded.

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
            'would start anew; train without save_param_scheduler=False, or start anew with '
            'load_from'
        )
    state = checkpoint['optimizer'].get('state')
    groups = checkpoint['optimizer'].get('param_groups')
    whole = isinstance(state, Mapping) and isinstance(groups, list)
    if not whole or not all(isinstance(part, Mapping) for part in (*state.values(), *groups)):
        raise ValueError(f'resume: optimizer.state or param_groups is malformed; {REMEDY}')
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if optimizer is not None:  # several are refused later
        _check_written_by_this_kind(state.values(), optimizer)
    own = checkpoint.get(STATE_KEY)
    held = own.get('holds') if isinstance(own, Mapping) else None
    if isinstance(held, Mapping):
        for what, count in contents(checkpoint).items():
            if held.get(what) != count:
                raise ValueError(
                    f'resume: the checkpoint holds {count} {what}, and was saved with '
                    f'{held.get(what)}; {REMEDY}'
                )


def warn_of_random_weights(runner: Runner) -> None:
    """Say so where nothing was loaded: what has not learned yet has no channels to rank."""
    if runner._resume or 'Pretrained' in str(runner.cfg.get('model')):
        return
    runner.logger.warning(
        'load_from=None: AdaSAP prunes a model from its random weights, of which no channel is '
        'more important than another; name the checkpoint of a dense training in load_from'
    )


def check_nothing_left_out(runner: Runner) -> None:
    """Refuse to resume where there is nothing to resume from and load_from would be ignored.

    mmdet's train.py --resume drops load_from, and mmengine then starts from random weights.

    Raises:
        ValueError: If the file of the config has a load_from.
    """
    if not runner._resume:
        return
    filename = getattr(runner.cfg, 'filename', None)
    if filename and Path(filename).is_file():
        config = Config.fromfile(filename, import_custom_modules=False)
        if config.get('load_from'):
            raise ValueError(
                f'resume: {runner.work_dir} has no checkpoint to go on from, and with --resume '
                f'load_from={config.load_from!r} is left out; start without --resume'
            )
    runner.logger.warning(
        f'resume: {runner.work_dir} has no checkpoint to go on from, so the run starts anew, '
        f'without load_from'
    )


def check_not_foreign(checkpoint: Mapping, runner: Runner) -> None:
    """Refuse weights of another shape, which mmengine logs, and goes on with random ones.

    To start a training a few may differ, as those of a head for other classes do.

    Raises:
        ValueError: If not one tensor fits the model; if most do not; or if one does not, where
            a run is tested or resumed.
    """
    model = unwrapped(runner.model)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = checkpoint.get('state_dict', checkpoint)
    found = {
        name.removeprefix('module.'): tensor.shape
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor)
    }
    common = found.keys() & shapes.keys()
    misfits = sorted(name for name in common if found[name] != shapes[name])
    name = type(model).__name__
    if len(misfits) == len(common):
        raise ValueError(
            f'load_from: the checkpoint has no tensor of {name}; use the config that it was '
            f'trained with'
        )
    starts = runner._train_loop is not None and not runner._resume
    if misfits and (not starts or 2 * len(misfits) > len(common)):
        first = misfits[0]
        raise ValueError(
            f'load_from: {len(misfits)} of {len(common)} tensors of the checkpoint have other '
            f'shapes than {name}, {first} {tuple(found[first])} and not {tuple(shapes[first])}; '
            f'use the config that it was trained with. If it was pruned, its meta is missing: '
            f"publish it with published_keys=['meta', 'state_dict']; a model.pth of "
            f'tools/export.py goes with the config.py beside it alone'
        )


def fingerprint(checkpoint: Mapping) -> str:
    """What tells a checkpoint from another one of a model: iteration, structure and weights."""
    meta = checkpoint.get('meta') or {}
    weights = checkpoint.get('state_dict', checkpoint)
    sums = [
        (name, value.double().sum().item())
        for name, value in weights.items()
        if isinstance(value, Tensor)
    ]
    structure = meta.get(META_KEY)
    described = (meta.get('iter'), structure and digest(structure), sums)
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]
