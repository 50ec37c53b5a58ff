# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import logging
import math
import re

import pytest
import torch

from mmdet_adasap.hooks.training_log import LossRatioWatch
from mmdet_adasap.sharpness import AdaptivePerturbation, UniformPerturbation


def verdict(ratios, perturbation=None):
    watch = LossRatioWatch(
        'warmup', 'perturbation', perturbation or AdaptivePerturbation(), 0, len(ratios)
    )
    *before, last = [watch.add(torch.tensor(ratio)) for ratio in ratios]
    assert not any(before)
    return last


@pytest.mark.parametrize(
    ('ratios', 'level', 'words'),
    [
        ([1.0, 1.01, 1.02], logging.WARNING, 'was 1.010 on average, .*: raise perturbation.rho'),
        ([1.1, 1.2, 1.3], logging.INFO, 'was 1.200 on average$'),
        ([1.0, 2.0, 3.6], logging.WARNING, 'was 2.200 on average, .*: lower perturbation.rho'),
        (
            [1.3, math.nan, 1.1],
            logging.INFO,
            '1 losses were not finite; elsewhere .* was 1.200 on',
        ),
        ([math.nan, math.inf], logging.WARNING, 'iterations 1 to 2, of .* no loss was finite'),
    ],
)
def test_radii_that_are_too_small_or_large_are_said(ratios, level, words):
    found, text = verdict(ratios)
    assert found == level
    assert re.search(words, text)


@pytest.mark.parametrize(
    ('perturbation', 'radii'),
    [
        (AdaptivePerturbation(), 'perturbation.rho_max and perturbation.rho_min until'),
        (UniformPerturbation(), 'perturbation.rho until'),
    ],
)
def test_radii_are_called_as_the_config_does(perturbation, radii):
    assert f'raise {radii}' in verdict([1.0], perturbation)[1]


def test_is_said_once_about_a_hundred_iterations():
    """Of a run that was resumed at iteration 20, too."""
    watch = LossRatioWatch('finetune', 'finetune', UniformPerturbation(), 20, 170)
    said = [watch.add(1.0 if step < 100 else 5.0) for step in range(150)]
    assert [step for step, each in enumerate(said) if each] == [99]
    assert 'raise finetune.rho until' in said[99][1]
    assert 'in iterations 21 to 120, ' in said[99][1]


def test_of_a_phase_without_steps_nothing_is_said():
    watch = LossRatioWatch('finetune', 'finetune', UniformPerturbation(), 5, 5)
    assert watch.add(1.0) is None
