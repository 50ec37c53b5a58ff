# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import math

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.models.dense_heads import PISASSDHead, SSDHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_adasap.integration.compat import mend_ssd_head, ssd_head_can_predict, ssd_head_is_mended

CONFIG = """
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
custom_imports = dict(imports=['mmdet_adasap'], allow_failed_imports=False)
model = dict(backbone=dict(init_cfg=None))
"""
ANCHORS = {
    'type': 'SSDAnchorGenerator',
    'scale_major': False,
    'input_size': 300,
    'basesize_ratio_range': (0.2, 0.9),
    'strides': [8, 16, 32, 64, 100, 300],
    'ratios': [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
}
META = {
    'img_shape': (300, 300),
    'ori_shape': (300, 300),
    'pad_shape': (300, 300),
    'scale_factor': (1.0, 1.0),
}


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """The stock SSD300, with weights that tell the classes apart."""
    path = tmp_path_factory.mktemp('configs') / 'ssd.py'
    path.write_text(CONFIG)
    config = Config.fromfile(path)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(config.model).eval()


@pytest.fixture(scope='module')
def raw(detector):
    """Class scores and box deltas of two images, as the head's forward gives them."""
    generator = torch.Generator().manual_seed(1)
    sizes = (38, 19, 10, 5, 3, 1)
    priors = detector.bbox_head.num_base_priors
    scores = [
        torch.randn(2, n * 21, s, s, generator=generator) * 3
        for n, s in zip(priors, sizes, strict=True)
    ]
    deltas = [
        torch.randn(2, n * 4, s, s, generator=generator)
        for n, s in zip(priors, sizes, strict=True)
    ]
    return scores, deltas


def decode_by_hand(head, scores, deltas, image, threshold):
    """Softmax with the background last, and Eq. 1 to 4 of the R-CNN box coder."""
    sizes = [score.shape[-2:] for score in scores]
    priors = head.prior_generator.grid_priors(sizes, dtype=torch.float64, device='cpu')
    kept = []
    for score, delta, prior in zip(scores, deltas, priors, strict=True):
        score = score[image].permute(1, 2, 0).reshape(-1, 21).exp()
        score = (score / score.sum(1, keepdim=True))[:, :20]
        delta = delta[image].permute(1, 2, 0).reshape(-1, 4)
        centre, size = (prior[:, :2] + prior[:, 2:]) / 2, prior[:, 2:] - prior[:, :2]
        centre = centre + delta[:, :2] * 0.1 * size
        size = size * (delta[:, 2:] * 0.2).clamp(-math.log(1000 / 16), math.log(1000 / 16)).exp()
        box = torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 300)
        anchor, label = (score > threshold).nonzero(as_tuple=True)
        order = score[anchor, label].argsort(descending=True)
        anchor, label = anchor[order], label[order]
        kept.append((score[anchor, label], label, box[anchor]))
    return [torch.cat(parts) for parts in zip(*kept, strict=True)]


def build_as_mmdet_does(**kwargs):
    """An SSDHead made by mmdet's own ``__init__``."""
    head = SSDHead.__new__(SSDHead)
    getattr(SSDHead.__init__, '__wrapped__', SSDHead.__init__)(head, **kwargs)
    return head


class TestSSDHead:
    def test_stock_config_predicts(self, detector):
        image = torch.randn(2, 3, 300, 300, generator=torch.Generator().manual_seed(0))
        samples = [DetDataSample(metainfo=META) for _ in range(2)]
        with torch.no_grad():
            results = detector(image, samples, mode='predict')
        for result in results:
            instances = result.pred_instances
            assert 0 < len(instances) <= 200
            assert torch.isfinite(instances.bboxes).all()
            assert ((instances.scores > 0.02) & (instances.scores <= 1)).all()

    @pytest.mark.parametrize('image', [0, 1])
    def test_predictions_are_the_decoded_outputs(self, detector, raw, image):
        head = detector.bbox_head
        raw = [[level.double() for level in levels] for levels in raw]  # no ties in the order
        cfg = head.test_cfg.copy()
        cfg.update(nms_pre=100_000, score_thr=0.3, min_bbox_size=-1)
        results = head.predict_by_feat(*raw, batch_img_metas=[META] * 2, cfg=cfg, with_nms=False)
        scores, labels, boxes = decode_by_hand(head, *raw, image, threshold=0.3)
        assert len(scores) > 500
        torch.testing.assert_close(results[image].scores, scores, rtol=1e-9, atol=1e-9)
        assert torch.equal(results[image].labels, labels)
        torch.testing.assert_close(results[image].bboxes, boxes, rtol=1e-6, atol=1e-6)

    def test_loss_is_unchanged(self, detector, raw):
        head = detector.bbox_head
        truth = [
            InstanceData(bboxes=torch.tensor([[30.0, 40, 120, 200]]), labels=torch.tensor([3])),
            InstanceData(bboxes=torch.tensor([[5.0, 5, 60, 60]]), labels=torch.tensor([19])),
        ]
        stock = build_as_mmdet_does(
            num_classes=20,
            anchor_generator=ANCHORS,
            bbox_coder={'type': 'DeltaXYWHBBoxCoder', 'target_stds': [0.1, 0.1, 0.2, 0.2]},
            train_cfg=head.train_cfg,
        )
        mended, expected = (h.loss_by_feat(*raw, truth, [META] * 2) for h in (head, stock))
        for key in ('loss_cls', 'loss_bbox'):
            assert torch.equal(torch.stack(mended[key]), torch.stack(expected[key]))
        assert sum(mended['loss_cls']) > 0
        # Old checkpoints load: the same names, the same shapes.
        shapes = [{k: v.shape for k, v in h.state_dict().items()} for h in (head, stock)]
        assert shapes[0] == shapes[1]


class TestMendSSDHead:
    @pytest.mark.skipif(not ssd_head_is_mended(), reason='this mmdet needs no mending')
    def test_mmdet_needs_it(self, raw):
        """Fails when mmdet is repaired: then the mending can go."""
        stock = build_as_mmdet_does(num_classes=20, anchor_generator=ANCHORS, test_cfg={})
        with pytest.raises(AttributeError, match='loss_cls'):
            stock.predict_by_feat(*raw, batch_img_metas=[META] * 2)

    def test_is_done_once(self):
        init = SSDHead.__init__
        assert ssd_head_can_predict()
        assert not mend_ssd_head()
        assert SSDHead.__init__ is init

    def test_leaves_the_random_state(self):
        state = torch.get_rng_state()
        ssd_head_can_predict()
        assert torch.equal(torch.get_rng_state(), state)

    def test_derived_heads(self):
        """One that has no loss module is mended, one that sets its own keeps it."""

        class OwnLoss(SSDHead):
            def __init__(self):
                super().__init__(anchor_generator=ANCHORS)
                self.loss_cls = torch.nn.CrossEntropyLoss()

        assert PISASSDHead(anchor_generator=ANCHORS).loss_cls is None
        assert isinstance(OwnLoss().loss_cls, torch.nn.CrossEntropyLoss)
