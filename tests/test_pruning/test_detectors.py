# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Real detectors, with random weights and a random image."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from torch import nn

from _utils.nets import randomise
from mmdet_adasap.pruning import MagnitudeImportance, Pruner, cut

mmdet = pytest.importorskip('mmdet')

# Config, what differs from it, size of the image, round_to.
DETECTORS = {
    'ssd300': ('pascal_voc/ssd300_voc0712.py', {}, 300, 8),
    'retinanet': ('pascal_voc/retinanet_r50_fpn_1x_voc0712.py', {}, 256, 8),
    'yolox-s': ('yolox/yolox_s_8xb8-300e_coco.py', {}, 256, 8),
    'small yolox': (
        'yolox/yolox_s_8xb8-300e_coco.py',
        {
            'backbone.widen_factor': 0.25,
            'neck.in_channels': [64, 128, 256],
            'neck.out_channels': 64,
            'bbox_head.in_channels': 64,
            'bbox_head.feat_channels': 64,
            'bbox_head.num_classes': 10,
        },
        128,
        1,
    ),
}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config, changes, size, _ = DETECTORS[name]
    path = Path(mmdet.__file__).parent / '.mim' / 'configs' / config
    base = Config(dict(model=Config.fromfile(path).model))
    base.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    torch.manual_seed(0)
    # Without init_weights(), which would look for pretrained files.
    return randomise(MODELS.build(base.model)), torch.randn(1, 3, size, size)


def outputs(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [t for level in model.eval()(x, mode='tensor') for t in level]


def counted(model: nn.Module, x: torch.Tensor) -> dict[str, int]:
    info = get_model_complexity_info(model, inputs=(x,), show_table=False, show_arch=False)
    return dict(params=sum(p.numel() for p in model.parameters()), flops=info['flops'])


@pytest.mark.long
@pytest.mark.parametrize('name', DETECTORS)
def test_detector(name):
    model, x = build(name)
    *_, round_to = DETECTORS[name]
    dense = counted(model.eval(), x)
    pruner = Pruner(model, lambda m: m(x), dict(params=0.3), MagnitudeImportance(), round_to)
    assert pruner.dense == dense
    assert pruner.channels.unused_parameters == []
    for fraction in (0.7, 0.5, 0.3):
        pruner.prune_to(fraction)
        counts, sizes = pruner.masks.counts, pruner.channels.group_sizes
        step = np.minimum(counts + round_to, sizes)
        coarsest = (
            max(
                pruner.channels.params(np.where(np.arange(len(sizes)) == g, step, counts))
                / dense['params']
                for g in range(len(sizes))
            )
            - pruner.remaining()
        )
        assert 0 <= fraction - pruner.remaining() <= max(0.02 * fraction, coarsest)

        structure = pruner.structure('finetune')
        slim = copy.deepcopy(model)
        cut(slim, structure['keep'], structure['attrs'])
        masked_outputs, slim_outputs = outputs(model, x), outputs(slim, x)
        largest = max(t.abs().max() for t in masked_outputs)
        assert largest.isfinite()
        for a, b in zip(slim_outputs, masked_outputs, strict=True):
            assert (a - b).abs().max() <= 1e-5 * largest
            assert b.std() > 1e-4 * largest
    found = counted(slim, x)
    assert {r: found[r] / dense[r] for r in found} == structure['reached']
    # A model that was never traced takes the structure, and another image.
    fresh, _ = build(name)
    structure = pruner.cut()
    cut(fresh, structure['keep'], structure['attrs'])
    fresh.load_state_dict(model.state_dict())
    other = torch.randn(1, 3, *(np.array(x.shape[2:]) + 32))
    for a, b in zip(outputs(fresh, other), outputs(model, other), strict=True):
        assert torch.equal(a, b)
