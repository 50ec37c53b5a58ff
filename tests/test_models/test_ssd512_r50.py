# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""AdaSAP's own detector, which is made of mmdet's parts by its config alone."""

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_adasap.models import raw_forward
from mmdet_adasap.pruning import cut, indices_from_masks
from mmdet_adasap.pruning.analysis import attribute_counts, find_channels

CONFIG = Path(__file__).parents[2] / 'configs' / 'ssd512' / 'ssd512_r50_8xb16-800e_voc0712.py'
SIDES = (64, 32, 16, 8, 4, 2, 1)
SMALL = 288  # pixels, about the least that has all seven levels


def sample(size: int) -> DetDataSample:
    meta = dict.fromkeys(
        ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (size, size)
    )
    truth = InstanceData(
        bboxes=torch.tensor([[30.0, 40, 120, 200], [5, 5, 270, 280]]), labels=torch.tensor([3, 19])
    )
    return DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0)}, gt_instances=truth)


@pytest.fixture(scope='module')
def detector():
    model = Config.fromfile(CONFIG).model
    model.backbone.init_cfg = None
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(model)


class TestSSD512R50:
    def test_levels_fit_the_anchors(self, detector):
        detector.eval()
        with torch.no_grad():
            (feature,) = detector.backbone(torch.randn(1, 3, 512, 512))
            scores, deltas = detector.bbox_head(detector.neck([feature]))
        assert not hasattr(detector.backbone, 'layer4')
        assert feature.shape == (1, 1024, 64, 64)
        generator = detector.bbox_head.prior_generator
        assert [stride[0] for stride in generator.strides] == [512 // side for side in SIDES]
        for level, side in enumerate(SIDES):
            anchors = generator.num_base_priors[level]
            assert scores[level].shape == (1, 21 * anchors, side, side)
            assert deltas[level].shape == (1, 4 * anchors, side, side)
        # SSD512's number of boxes, from small ones to those of nearly the whole image.
        priors = generator.grid_priors([(side, side) for side in SIDES], device='cpu')
        assert sum(map(len, priors)) == 24564
        widths = [float(level[0, 2] - level[0, 0]) for level in priors]
        assert widths == sorted(widths)
        assert widths[0] < 0.1 * 512
        assert widths[-1] > 0.8 * 512

    @pytest.mark.long
    def test_trains_as_a_whole_and_predicts(self, detector):
        detector.train()
        samples = [sample(SMALL), sample(SMALL)]
        losses = detector(torch.randn(2, 3, SMALL, SMALL), samples, mode='loss')
        loss, _ = detector.parse_losses(losses)
        assert torch.isfinite(loss)
        loss.backward()
        # What is frozen would never be cut.
        assert all(p.grad is not None for p in detector.parameters())
        assert detector.backbone.conv1.weight.grad.any()
        assert detector.backbone.bn1.training
        detector.zero_grad()
        detector.eval()
        with torch.no_grad():
            (result,) = detector(torch.randn(1, 3, 512, 512), [sample(512)], mode='predict')
        assert 0 < len(result.pred_instances) <= 200
        assert torch.isfinite(result.pred_instances.bboxes).all()

    @pytest.mark.long
    def test_channels_are_found(self, detector):
        """All of them: half of every group leaves less than 0.4 of the parameters."""
        model = copy.deepcopy(detector).eval()
        inputs = torch.randn(1, 3, SMALL, SMALL)
        forward = raw_forward(dict(inputs=inputs, data_samples=[sample(SMALL)]))
        channels = find_channels(model, forward)
        assert not channels.excluded
        assert channels.unused_parameters == []
        parameters = sum(p.numel() for p in model.parameters())
        kept = [torch.arange(group.size).numpy() < group.size // 2 for group in channels.groups]
        keep = indices_from_masks(model, channels.groups, kept)
        cut(model, keep, attribute_counts(model, channels, keep, kept))
        assert sum(p.numel() for p in model.parameters()) < 0.4 * parameters
        assert model.neck.extra_layers[-1][1].conv.out_channels == 128
        forward(model)
