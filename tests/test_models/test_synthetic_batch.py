# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet_adasap.apis import build_dense
from mmdet_adasap.models import synthetic_batch


@pytest.mark.parametrize(('size', 'shape'), [(96, (96, 96)), ((64, 96), (64, 96))])
def test_height_and_width(size, shape):
    model = build_dense('configs/demo/dense_yolox_tiny-voc.py')
    batch = synthetic_batch(model, size, images=2)
    height, width = shape
    assert [image.shape for image in batch['inputs']] == [(3, height, width)] * 2
    sample = batch['data_samples'][0]
    assert sample.batch_input_shape == shape
    boxes = sample.gt_instances.bboxes
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (boxes[:, 2:] <= torch.tensor([width, height])).all()
    assert boxes[1].tolist() == pytest.approx([8, 8, 0.8 * width, 0.8 * height])
