# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""P and R on another test set, against numbers computed by hand."""

import numpy as np
import pytest

from mmdet_adasap.robustness.metrics.bootstrap import Z, image_weights, seed_of_set
from mmdet_adasap.robustness.shifted_sets import build_shifts


def cell(**models) -> dict:
    return {'models': {n: {'value': p, 'resampled': drawn} for n, (p, drawn) in models.items()}}


CLEAN = cell(dense=(0.8, [0.8, 0.7, 0.9]), slim=(0.5, [0.5, 0.4, 0.6]))
THERE = cell(dense=(0.4, [0.4, 0.35, 0.36]), slim=(0.3, [0.35, 0.3, 0.33]))


def test_by_hand():
    found = build_shifts(THERE, CLEAN, ['dense', 'slim'], 'dense')
    assert found['dense']['P'] == 0.4
    assert found['dense']['R'] == pytest.approx(0.5)
    assert found['dense']['difference'] is None
    assert found['slim']['R'] == pytest.approx(0.6)
    # Resamples of R: .5, .5, .4 and .7, .75, .55.
    reach = Z * np.std([0.7, 0.75, 0.55], ddof=1)
    assert found['slim']['ci95']['R'] == pytest.approx([0.6 - reach, 0.6 + reach])
    difference = found['slim']['difference']
    assert difference['P']['value'] == pytest.approx(-0.1)
    assert difference['R']['value'] == pytest.approx(0.1)
    # Paired: -.05, -.05, -.03 and .2, .25, .15.
    reach = Z * np.std([-0.05, -0.05, -0.03], ddof=1)
    assert difference['P']['ci95'] == pytest.approx([-0.1 - reach, -0.1 + reach])
    reach = Z * 0.05
    assert difference['R']['ci95'] == pytest.approx([0.1 - reach, 0.1 + reach])


def test_without_resamples():
    clean, there = cell(a=(0.8, None), b=(0.5, None)), cell(a=(0.4, None), b=(0.3, None))
    found = build_shifts(there, clean, ['a', 'b'], 'a')['b']
    assert found['ci95'] is None
    assert found['difference']['R'] == {'value': pytest.approx(0.1), 'ci95': None}


def test_a_model_that_is_never_right_keeps_no_share():
    clean = cell(a=(0.8, [0.8, 0.7, 0.9]), b=(0.0, [0.0, 0.0, 0.0]))
    found = build_shifts(
        THERE | cell(a=(0.4, [0.4, 0.3, 0.5]), b=(0.1, [0.1, 0.1, 0.2])), clean, ['a', 'b'], 'a'
    )['b']
    assert found['R'] is None
    assert found['ci95']['R'] is None
    assert found['difference']['R'] is None
    assert found['difference']['P']['value'] == pytest.approx(-0.3)


def test_a_reference_that_was_not_tested_there():
    found = build_shifts(THERE, CLEAN, ['slim'], 'dense')
    assert found['slim']['difference'] is None


def test_images_of_two_sets_of_one_size_are_drawn_apart():
    """Else a good draw of one would go with a good draw of the other."""
    seed = 3
    weights = [image_weights(50, 400, s) for s in (seed, seed_of_set(seed, 'imagenet-v2'))]
    assert np.array_equal(weights[1], image_weights(50, 400, seed_of_set(seed, 'imagenet-v2')))
    first = [each @ np.arange(50) for each in weights]
    assert abs(np.corrcoef(first)[0, 1]) < 0.2
