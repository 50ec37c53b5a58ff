# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import logging
import math
import re

import pytest
import torch

from mmdet_adasap.hooks.loss_ratio import LossRatioWatch


def verdict(ratios, key='perturbation', steps=3):
    watch = LossRatioWatch('warmup', key, steps)
    said = [watch.add(torch.tensor(ratio)) for ratio in ratios]
    assert [each for each in said[: steps - 1] if each] == []
    return said[steps - 1]


@pytest.mark.parametrize(
    ('ratios', 'level', 'words'),
    [
        ([1.0, 1.01, 1.02], logging.WARNING, 'is 1.010 on average, .*: raise .*perturbation'),
        ([1.1, 1.2, 1.3], logging.INFO, 'is 1.200 on average$'),
        ([1.0, 2.0, 3.6], logging.WARNING, 'is 2.200 on average, .*: lower .*perturbation'),
        ([1.0, math.nan, 1.0], logging.WARNING, 'is nan on average, .*: lower '),
    ],
)
def test_radii_that_are_too_small_or_large_are_said(ratios, level, words):
    found, text = verdict(ratios)
    assert found == level
    assert re.search(words, text)


def test_is_said_once_about_the_first_hundred():
    watch = LossRatioWatch('finetune', 'finetune', 150)
    said = [watch.add(1.0 if step < 100 else 5.0) for step in range(150)]
    assert [step for step, each in enumerate(said) if each] == [99]
    assert 'raise the radii of finetune (rho)' in said[99][1]
    assert 'over 100 steps' in said[99][1]


def test_of_a_phase_without_steps_nothing_is_said():
    assert LossRatioWatch('finetune', 'finetune', 0).add(1.0) is None
