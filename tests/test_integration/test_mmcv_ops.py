# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The operators that set-up compiles give what torchvision's give, forwards and backwards."""

import pytest
import torch

pytest.importorskip('mmcv._ext')
pytest.importorskip('torchvision')

from mmcv.ops import deform_conv2d, modulated_deform_conv2d, nms, roi_align
from torchvision import ops


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def gradients(loss, *tensors):
    return torch.autograd.grad(loss.square().sum(), tensors)


@pytest.mark.parametrize('threshold', [0.3, 0.5, 0.9])
def test_nms(threshold):
    corners = torch.rand(300, 2) * 20
    boxes = torch.cat([corners, corners + 5 + torch.rand(300, 2) * 40], 1)
    scores = torch.rand(300)
    _, kept = nms(boxes, scores, iou_threshold=threshold)
    expected = ops.nms(boxes, scores, threshold)
    assert 5 < len(expected) < 300
    assert kept.tolist() == expected.tolist()


@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align(aligned):
    features = torch.randn(2, 3, 20, 24, requires_grad=True)
    corners = torch.rand(9, 2) * 60
    rois = torch.cat(
        [torch.arange(9)[:, None] % 2, corners, corners + 1 + torch.rand(9, 2) * 30], 1
    )
    got = roi_align(features, rois, (7, 5), 0.25, 2, 'avg', aligned)
    expected = ops.roi_align(features, rois, (7, 5), 0.25, 2, aligned)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gradients(got, features), gradients(expected, features))


@pytest.mark.parametrize('groups', [1, 2])
def test_deformable_convolution(groups):
    x = torch.randn(2, 4, 9, 11, requires_grad=True)
    weight = torch.randn(6, 4 // groups, 3, 3, requires_grad=True)
    offset = torch.randn(2, 2 * 9, 9, 11, requires_grad=True)
    got = deform_conv2d(x, offset, weight, 1, 1, 1, groups, 1)
    expected = ops.deform_conv2d(x, offset, weight, padding=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    inputs = (x, weight, offset)
    for one, other in zip(gradients(got, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_modulated_deformable_convolution():
    x = torch.randn(2, 4, 9, 11, requires_grad=True)
    weight, bias = torch.randn(6, 4, 3, 3, requires_grad=True), torch.randn(6, requires_grad=True)
    offset = torch.randn(2, 2 * 9, 9, 11, requires_grad=True)
    mask = torch.rand(2, 9, 9, 11, requires_grad=True)
    got = modulated_deform_conv2d(x, offset, mask, weight, bias, 1, 1, 1, 1, 1)
    expected = ops.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    inputs = (x, weight, bias, offset, mask)
    for one, other in zip(gradients(got, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
