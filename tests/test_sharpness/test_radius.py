# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pytest
import torch

from mmdet_adasap.sharpness import adaptive_radii

LOW, HIGH = 0.1, 0.9
MEAN = 0.5


class TestAdaptiveRadii:
    def test_formula(self):
        radii = adaptive_radii(torch.tensor([1.0, 2.0, 5.0]), LOW, HIGH)
        torch.testing.assert_close(radii, torch.tensor([0.9, 0.7, 0.1]))

    @pytest.mark.parametrize(
        'scores', [[3.0, 3.0, 3.0], [2.0], [0.0, 0.0]], ids=['equal', 'one neuron', 'zeros']
    )
    def test_no_ranking_gives_the_mean(self, scores):
        radii = adaptive_radii(torch.tensor(scores), LOW, HIGH)
        torch.testing.assert_close(radii, torch.full((len(scores),), MEAN))

    @pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
    def test_bad_score_is_left_out_and_gets_the_smallest(self, bad):
        radii = adaptive_radii(torch.tensor([1.0, bad, 2.0, 5.0]), LOW, HIGH)
        torch.testing.assert_close(radii, torch.tensor([0.9, 0.1, 0.7, 0.1]))

    def test_only_bad_scores(self):
        radii = adaptive_radii(torch.full((2,), float('nan')), LOW, HIGH)
        torch.testing.assert_close(radii, torch.full((2,), LOW))

    def test_masked_neurons_are_left_out_of_the_range(self):
        scores = torch.tensor([0.0, 1.0, 2.0, 5.0, 100.0, float('nan')])
        keep = torch.tensor([False, True, True, True, False, False])
        radii = adaptive_radii(scores, LOW, HIGH, keep)
        torch.testing.assert_close(radii, torch.tensor([0.0, 0.9, 0.7, 0.1, 0.0, 0.0]))

    def test_each_row_has_its_own_range(self):
        scores = torch.tensor([[1.0, 2.0, 5.0], [40.0, 20.0, 10.0]])
        rows = [adaptive_radii(row, LOW, HIGH) for row in scores]
        torch.testing.assert_close(adaptive_radii(scores, LOW, HIGH), torch.stack(rows))
        torch.testing.assert_close(rows[1], torch.tensor([0.1, 0.9 - 0.8 / 3, 0.9]))
