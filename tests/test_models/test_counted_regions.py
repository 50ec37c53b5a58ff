# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""FLOPs of a second stage are those of the regions that it really runs on."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmdet')

from mmdet_adasap.apis import build_dense, build_forward
from mmdet_adasap.integration.configs import read_config
from mmdet_adasap.pruning import find_channels, not_counted, repeated, trace_channels

WIDTH, SIDE, CLASSES = 16, 7, 3


def detector(name: str, proposals: int = 1000, detections: int = 100) -> nn.Module:
    """A narrow detector of mmdet, in eval mode."""
    config = read_config(f'mmdet::{name}')
    config.model.test_cfg.rpn.max_per_img = proposals
    config.model.test_cfg.rcnn.max_per_img = detections
    config.model.backbone.update(depth=18, base_channels=4, init_cfg=None, frozen_stages=-1)
    config.model.neck.update(in_channels=[4, 8, 16, 32], out_channels=WIDTH)
    config.model.rpn_head.update(in_channels=WIDTH, feat_channels=WIDTH)
    heads = config.model.roi_head
    heads.bbox_roi_extractor.out_channels = WIDTH
    heads.bbox_head.update(in_channels=WIDTH, fc_out_channels=32, num_classes=CLASSES)
    if 'mask_head' in heads:
        heads.mask_roi_extractor.out_channels = WIDTH
        heads.mask_head.update(
            num_convs=1, in_channels=WIDTH, conv_out_channels=8, num_classes=CLASSES
        )
    return build_dense(config).eval()


def flops(model: nn.Module) -> int:
    channels = trace_channels(model, build_forward(model))
    return channels.flops(channels.group_sizes)


def test_faster_rcnn_by_hand():
    """Convolutions, linear layers and norms of the image once, of the head 1000 times."""
    model = detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    counted, forward, once = flops(model), build_forward(model), 0
    names = {module: name for name, module in model.named_modules()}

    def add(module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        nonlocal once
        # A norm in eval mode scales and shifts each value.
        per_output = module.weight[0].numel() if isinstance(module, nn.Conv2d) else 2
        # Three of the levels get that above them, enlarged: one operation a value.
        per_output += names[module] in [f'neck.lateral_convs.{level}.conv' for level in range(3)]
        once += out.numel() * per_output

    for module, name in names.items():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and not name.startswith('roi_head'):
            module.register_forward_hook(add)
    with torch.no_grad():
        forward(model)
    head = WIDTH * SIDE**2 * 32 + 32 * 32 + 32 * (CLASSES + 1) + 32 * 4 * CLASSES
    assert counted == once + 1000 * head


def test_masks_are_predicted_of_what_was_found():
    name = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    many, few = (flops(detector(name, *numbers)) for numbers in ((1000, 100), (500, 50)))
    head = WIDTH * SIDE**2 * 32 + 32 * 32 + 32 * (CLASSES + 1) + 32 * 4 * CLASSES
    mask = 14**2 * 9 * WIDTH * 8 + 28**2 * 8 * 8 + 28**2 * 8 * CLASSES
    assert many - few == 500 * head + 50 * mask


class Heads(nn.Module):
    """A part that runs on regions and on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.region, self.after = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.after(self.region(x)), self.region(x[:1])


def test_repeated_counts_the_inputs_that_were_traced():
    model, x = Heads(), torch.randn(5, 4)
    single = 4 * 8
    assert flops_of(model, lambda m: m(x)) == 5 * (single + 16) + single
    with repeated(model.region, traced=5, later=20):
        assert flops_of(model, lambda m: m(x)) == 20 * single + 5 * 16 + single

    def uncounted(m):
        with not_counted():
            return m(x)

    assert flops_of(model, uncounted) == 0


def flops_of(model: nn.Module, forward) -> int:
    channels = trace_channels(model, forward)
    return channels.flops(channels.group_sizes)


class WithAuxiliary(nn.Module):
    """A head that runs in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head, self.auxiliary = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        x = self.stem(x)
        return (self.head(x), self.auxiliary(x)) if self.training else self.head(x)


def test_a_pass_of_training_is_not_counted():
    x = torch.randn(2, 8)
    channels = find_channels(WithAuxiliary().eval(), lambda m: m(x))
    assert channels.flops(channels.group_sizes) == 2 * 2 * 64
