# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What AdaSAPHook keeps in a checkpoint beside the structure, and reads back on resume."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import StructureError
from ..pruning import ChannelGroup, Importance, Pruner
from ..sharpness import LossRatioController
from .settings import PERTURBATION_KEYS, AdaSAPSettings

STATE_KEY = 'mmdet_adasap'
"""Where a checkpoint has what resuming needs besides the structure: 'settings' of the run,
'importance' as the criterion's state_dict, 'holds', numbers of what mmengine saved, 'frozen',
parameters that were not trained at the start, 'radii', what scales them, 'correction', of limits
of latency, and 'measured', the share of the dense latency of a choice that was timed."""
START_ANEW = 'start anew with load_from and without --resume'
"""Beside --resume load_from is dropped by mmdet's train.py, as by mmpretrain's where the config's
file has it. Where --cfg-options has it, mmpretrain's resumes from that file."""
REMEDY = f'resume from one as train.py writes it, or {START_ANEW}'


def compare_settings(
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
    # The step of another table is another round_to, too: say first that it is another table.
    present = sorted(settings.to_dict().items(), key=lambda item: item[0] != 'target')
    for key, value in present:
        if key == 'max_pruning_ratio' and key not in saved and value < 1:
            warnings.append(
                f'resume: the run was started by a version without max_pruning_ratio and goes on '
                f'with {value}; set max_pruning_ratio=1.0 for a run as it was started'
            )
        if saved.get(key, value) == value:
            continue
        if key not in PERTURBATION_KEYS:
            if key == 'target' and _without_table(saved[key]) == _without_table(value):
                raise StructureError(
                    f'resume: the run was started with another latency table '
                    f'({saved[key].get("table")} and not {value.get("table")}, the digests); '
                    f'give it the table that it was started with'
                )
            raise StructureError(
                f'resume: the run was started with {key}={saved[key]!r} and goes on with '
                f'{key}={value!r}; resume with the settings that it was started with'
            )
        warnings.append(
            f'resume: the run was started with {key}={saved[key]} and goes on with '
            f'{key}={value}; it will not equal an uninterrupted one'
        )
    return warnings


def restore_timing(pruner: Pruner, state: Mapping) -> None:
    """Give a pruner back what was known of the clock when the checkpoint was written.

    Args:
        pruner (Pruner): The pruner.
        state (Mapping): What the checkpoint holds under :data:`STATE_KEY`.

    Raises:
        StructureError: If it is no positive number.
    """
    correction, measured = state.get('correction', 1.0), state.get('measured')
    for key, value in (('correction', correction), ('measured', measured)):
        is_number = type(value) is float and 0 < value < math.inf
        if not is_number and not (key == 'measured' and value is None):
            raise StructureError(
                f'resume: {STATE_KEY}.{key} of the checkpoint is {value!r} and must be a number '
                f'above 0; resume from another one'
            )
    pruner.limits.correction, pruner.measured = correction, measured


def radii_of(settings: AdaSAPSettings) -> dict[str, dict]:
    """Return what scales the radii of a run, by the setting that has them; {} if nothing does."""
    return {key: controller.state_dict() for key, controller in _controllers(settings).items()}


def restore_radii(settings: AdaSAPSettings, state: Mapping) -> None:
    """Let radii be scaled as when the checkpoint was written.

    Args:
        settings (AdaSAPSettings): The settings.
        state (Mapping): What the checkpoint holds under :data:`STATE_KEY`.

    Raises:
        StructureError: If that is no scale.
    """
    saved = state.get('radii', {})
    for key, controller in _controllers(settings).items():
        try:
            if key in saved:  # radii may have been fixed before
                controller.load_state_dict(saved[key])
        except (AttributeError, TypeError, ValueError) as error:
            raise StructureError(
                f'resume: {STATE_KEY}.radii.{key} of the checkpoint is not what scales radii '
                f'({error}); resume from another one'
            ) from error


def _controllers(settings: AdaSAPSettings) -> dict[str, LossRatioController]:
    found = {key: getattr(settings, key) for key in PERTURBATION_KEYS}
    return {
        key: perturbation.controller
        for key, perturbation in found.items()
        if perturbation is not None and perturbation.controller is not None
    }


def _without_table(target: Mapping) -> dict:
    return {key: value for key, value in target.items() if key != 'table'}


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
