# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import torch
from torch import nn

from mmdet_adasap.sharpness import magnitude


class TestMagnitude:
    def test_convolution(self):
        weight = nn.Conv2d(3, 5, 3).weight
        expected = torch.stack([w.square().sum().sqrt() for w in weight])
        torch.testing.assert_close(magnitude(weight, 0), expected)

    def test_transposed_convolution(self):
        weight = nn.ConvTranspose2d(3, 5, 2).weight
        expected = torch.stack([weight[:, i].square().sum().sqrt() for i in range(5)])
        torch.testing.assert_close(magnitude(weight, 1), expected)

    def test_vector(self):
        torch.testing.assert_close(
            magnitude(torch.tensor([-2.0, 3.0]), 0), torch.tensor([2.0, 3.0])
        )

    def test_half_precision_is_summed_in_float32(self):
        weight = torch.full((2, 100), 300.0, dtype=torch.float16)  # its square is not finite
        scores = magnitude(weight, 0)
        torch.testing.assert_close(scores, torch.full((2,), 3000.0))
