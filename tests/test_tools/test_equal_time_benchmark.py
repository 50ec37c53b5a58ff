# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""How tools/benchmarks/equal_time.py holds networks to a time, and what its tables say."""

import argparse
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.registry import HOOKS

from _utils.adasap_runs import train
from _utils.toy import ToyModel, settings
from mmdet_adasap.models import count_parameters
from mmdet_adasap.registry import IMPORTANCES

FOLDER = Path(__file__).parents[2] / 'tools' / 'benchmarks'
MODULES = ('criteria', 'criteria_models', 'equal_time', 'equal_time_control', 'equal_time_table')


@pytest.fixture(scope='module')
def tool():
    """The modules of the tool; what they register goes when the tests are over."""
    sys.path.insert(0, str(FOLDER))  # where they find each other
    names = MODULES[2:]
    yield SimpleNamespace(
        **{name.rpartition('_')[2]: importlib.import_module(name) for name in names}
    )
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        sys.modules.pop(name, None)
    for name in ('GroupMagnitudeImportance',):
        IMPORTANCES.module_dict.pop(name, None)
    HOOKS.module_dict.pop('EqualTimeHook', None)


@pytest.mark.parametrize('wanted', [0.35, 0.6, 0.9])
def test_search_finds_the_fraction_of_a_formula(tool, wanted):
    fraction, share = tool.control.find_fraction(lambda f: 0.3 + 0.7 * f**2, wanted)
    assert share == pytest.approx(wanted, rel=tool.control.CLOSE)
    assert 0.3 + 0.7 * fraction**2 == share


def test_search_takes_the_closer_side_of_a_jump(tool):
    def share_at(fraction: float) -> float:
        return 0.5 if fraction < 0.4 else 0.65

    assert tool.control.find_fraction(share_at, 0.6)[1] == 0.65
    assert tool.control.find_fraction(share_at, 0.55)[1] == 0.5


def test_search_stays_above_what_cannot_be_cut(tool):
    fraction, share = tool.control.find_fraction(lambda f: 0.7 + 0.3 * f if f > 0.2 else 0.0, 0.6)
    assert fraction == pytest.approx(0.2, abs=0.001)
    assert share > 0.7


def test_search_leaves_a_network_that_is_fast_enough(tool):
    assert tool.control.find_fraction(lambda f: 0.5 * f, 0.6, high=0.8) == (0.8, 0.4)


def test_hook_cuts_to_the_time_whatever_resource_it_limits(tool, monkeypatch, tmp_path):
    """The number of parameters stands for the time: it is exact, and not what is limited."""
    control = tool.control
    monkeypatch.setattr(control, '_image_shape', lambda runner: None)
    monkeypatch.setattr(
        control,
        'time_share',
        lambda dense, slim, *_, **__: count_parameters(slim) / count_parameters(dense),
    )
    hook = dict(type='EqualTimeHook', share=0.5, backend='torch', target=dict(flops=0.99))
    runner = train(settings(tmp_path, hook), width=16)
    found = next(h for h in runner.hooks if isinstance(h, control.EqualTimeHook))
    left = count_parameters(runner.model) / count_parameters(ToyModel(width=16))
    assert found.measured == pytest.approx(left)
    assert left == pytest.approx(0.5, rel=0.03)
    assert found.structure['reached']['flops'] <= found.fraction


def test_paired_interval_is_students(tool):
    mean, low, high = tool.table.paired_interval([2, 4, 6, 8, 10], [1, 2, 3, 4, 5])
    # sd 1.5811, over the root of 5 0.7071; t of 4 degrees of freedom 2.7764.
    np.testing.assert_allclose([mean, low, high], [3, 3 - 1.9633, 3 + 1.9633], atol=1e-4)
    assert tool.table.paired_interval([2], [1]) == (1, -np.inf, np.inf)


def test_table_pairs_seeds_and_counts_what_is_off_the_time(tool):
    line = dict(model='resnet', wanted=0.6, backend='torch', params=0.4, flops=0.5, mPC=0.25)
    arms = {'a': 0.6, 'b': 0.7}
    lines = [
        line | dict(arm=arm, seed=seed, clean=clean + seed / 10, share=0.6 + (seed == 2) / 50)
        for arm, clean in arms.items()
        for seed in range(3)
    ]
    lines.append(line | dict(arm='b', seed=3, clean=0.1, share=0.6))  # without a pair
    lines.append(dict(model='resnet', wanted=0.6, backend='torch', arm='c', seed=0, error='no'))
    table = tool.table.format_table(lines, ['resnet', 'yolox'], ['a', 'b', 'c'])
    assert 'resnet, 0.6 of the time in torch' in table
    assert 'yolox' not in table
    assert (
        '| a | 3 | 0.700 ± 0.100 | 0.250 ± 0.000 | 0.607 ± 0.012 (1 off) | 0.40 | 0.50 |' in table
    )
    assert '| b | 3 | +0.100 [+0.100, +0.100] | +0.000 [+0.000, +0.000] |' in table
    assert '| c | 1 failed | no | | | | |' in table


def test_an_arm_with_an_unknown_setting_says_so(tool, monkeypatch):
    args = argparse.Namespace(time=0.6, backend='torch', latency=None)
    known = 'params, ranked'
    assert tool.time.why_not(known, 'resnet', args) is None
    monkeypatch.setitem(tool.time.ARMS, 'new', tool.time.ARMS[known] | dict(colour='red'))
    assert 'colour' in tool.time.why_not('new', 'resnet', args)


def test_arms_differ_in_the_choice_of_channels_alone(tool):
    args = argparse.Namespace(time=0.6, backend='torch', latency=None)
    free = {'importance', 'target', 'solver', 'objective'}
    hooks = [tool.time.hook_of(label, 'resnet', args) for label in tool.time.ARMS]
    assert len({str(hook) for hook in hooks}) == len(hooks)
    assert len({str({k: v for k, v in hook.items() if k not in free}) for hook in hooks}) == 1


def test_every_model_has_a_config(tool, tmp_path):
    for model in tool.time.MODELS:
        cfg = tool.time.config_of(model, tmp_path)
        assert str(tmp_path) in str(cfg.test_dataloader.dataset.data_root)
