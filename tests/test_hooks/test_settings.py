# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Settings of AdaSAPHook alone: no Runner is built, and none is needed."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict

from _utils.latency_runs import toy_table
from mmdet_adasap.errors import LatencyTableError
from mmdet_adasap.hooks import AdaSAPHook
from mmdet_adasap.hooks.settings import AdaSAPSettings, part_to_dict
from mmdet_adasap.pruning import TaylorImportance, UniformWidth
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation

MADE_BY_0_1 = Path(__file__).parents[1] / 'data' / 'made_by_0_1'
GIVEN = dict(warmup=1, prune=2, target=dict(params=0.4))


@pytest.mark.parametrize(
    ('hook', 'message'),
    [
        (dict(target=dict(params=0)), r'^target=.*above 0 and at most 1'),
        (dict(target=dict(params=1.5)), r'^target=.*above 0 and at most 1'),
        (dict(target=dict(params=0.4, size=0.4)), r'^target=.*one or more of the keys'),
        (dict(target=dict(latency=0.4)), r'^target=.*latency needs the table of the device'),
        (dict(target=0.4), r'^target=0.4 must be a dict'),
        (dict(schedule='cubic'), r"^schedule='cubic' is unknown; use one of"),
        (dict(schedule=['linear']), r"^schedule=\['linear'\] is unknown; use one of"),
        (dict(importance=dict(type=['Random'])), r"^importance.type=\['Random'\] is unknown"),
        (
            dict(finetune=dict(type='UniformPerturbation', asam='no')),
            r"^finetune.asam='no' must be True or False",
        ),
        (dict(importance=dict(type='Random')), r"^importance.type='Random' is unknown"),
        (dict(importance=None), r'^importance=None; name one of'),
        (dict(perturbation=dict(type='SAM')), r"^perturbation.type='SAM' is unknown"),
        (
            dict(perturbation=dict(type='AdaptivePerturbation', rho_min=1.0, rho_max=0.1)),
            r'^perturbation.rho_min=1.0 is larger than rho_max=0.1',
        ),
        (
            dict(perturbation=dict(type='AdaptivePerturbation', rho_max=float('nan'))),
            r'^perturbation.rho_max=nan',
        ),
        (
            dict(finetune=dict(type='UniformPerturbation', rho=-0.1)),
            r'^finetune.rho=-0.1 must be',
        ),
        (
            dict(finetune=dict(type='UniformPerturbation', scope='channel')),
            r"^finetune.scope='channel' is unknown; use one of",
        ),
        (dict(warmup=-1), r'^warmup=-1 must be an integer of at least 0'),
        (dict(prune=0), r'^prune=0 must be an integer of at least 1'),
        (dict(interval=1.5), r'^interval=1.5 must be an integer'),
        (dict(round_to=0), r'^round_to=0 must be an integer'),
        (dict(by_epoch='yes'), r"^by_epoch='yes' must be True or False"),
    ],
)
def test_error_begins_with_the_key(hook, message):
    with pytest.raises(ValueError, match=message):
        AdaSAPSettings(**GIVEN | hook)


def test_defaults_and_what_they_are_built_to():
    settings = AdaSAPSettings(**GIVEN)
    assert settings.target.fractions == {'params': 0.4}
    assert settings.round_to == 8
    assert type(settings.importance) is TaylorImportance
    assert type(settings.perturbation) is AdaptivePerturbation
    assert type(settings.finetune) is UniformPerturbation
    assert settings.perturbation_of('warmup') == settings.perturbation_of('prune')
    assert settings.perturbation_of('warmup') == ('perturbation', settings.perturbation)
    assert settings.perturbation_of('finetune') == ('finetune', settings.finetune)


def test_hook_takes_the_same():
    hook = AdaSAPHook(3, 4, dict(flops=0.5), None, round_to=16)
    settings = hook.settings
    assert (settings.warmup, settings.prune, settings.round_to) == (3, 4, 16)
    assert (settings.target.fractions, settings.perturbation) == ({'flops': 0.5}, None)


def test_settings_do_not_change():
    settings = AdaSAPSettings(**GIVEN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.warmup = 2


def test_to_dict_is_what_checkpoints_of_0_1_hold():
    """Keys, their order and plain types, also where a config gave a ConfigDict."""
    checkpoint = torch.load(MADE_BY_0_1 / 'warmup.pth', weights_only=False)
    config = dict(warmup=2, prune=2, target=dict(params=0.4), interval=4, round_to=1)
    config['importance'] = dict(type='TaylorImportance')
    found = AdaSAPSettings(**ConfigDict(config)).to_dict()
    # Which 0.1 did not have.
    newer = [found.pop(key) for key in ('max_pruning_ratio', 'solver', 'objective')]
    assert newer == [0.9, 'ranked', 'sum']
    assert repr(found) == repr(checkpoint['mmdet_adasap']['settings'])
    assert type(found['target']) is dict
    assert AdaSAPSettings(**config, finetune=None).to_dict()['finetune'] is None


def test_state_is_no_setting():
    importance = TaylorImportance()
    before = part_to_dict(importance)
    importance._count = 3
    assert part_to_dict(importance) == before


LINEAR = 'linear, 1 row, 96 to 16 channels'


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (0, f'{LINEAR}: 0 is no ratio above 0; measure it again with measure_latency.py'),
        (-0.5, f'{LINEAR}: -0.5 is no ratio above 0; measure it again with measure_latency.py'),
        (None, f'{LINEAR}: not measured yet; go on with measure_latency.py and this --out'),
        ('{', 'is no JSON (Expecting'),
    ],
)
def test_a_damaged_table_is_one_line_that_begins_with_the_key(tmp_path, damage, message):
    content = json.loads(toy_table(tmp_path / 'table.json').read_text())
    linear = next(e for e in content['layers'] if e['key']['op'] == 'linear')
    linear['ratios'][-1][-1] = damage
    file = tmp_path / 'damaged.json'
    file.write_text(damage if damage == '{' else json.dumps(content))
    with pytest.raises(LatencyTableError) as error:
        AdaSAPSettings(warmup=1, prune=2, target=dict(latency=0.6, table=str(file)))
    assert str(error.value).startswith(f'target.table: {file}: {message}')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('target', 'criterion'),
    [(dict(params=0.5), TaylorImportance), (dict(latency=0.5, params=0.5), UniformWidth)],
)
def test_the_criterion_of_a_run_that_names_none_goes_by_the_target(target, criterion, tmp_path):
    if 'latency' in target:
        target['table'] = str(toy_table(tmp_path / 'table.json'))
    settings = AdaSAPSettings(**GIVEN | dict(target=target))
    assert isinstance(settings.importance, criterion)
    named = AdaSAPSettings(**GIVEN | dict(target=target, importance=dict(type='TaylorImportance')))
    assert type(named.importance) is TaylorImportance
