# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import runpy
import warnings

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmdet_adasap.models import mobilenet_v1
from mmdet_adasap.models.mobilenet_v1 import MobileNetV1


class TestMobileNetV1:
    @pytest.mark.parametrize(
        ('widen_factor', 'parameters'),
        # Those published for the network with its classifier, in millions: 4.2, 2.6, 1.3, 0.5.
        [(1.0, 4_231_976), (0.75, 2_585_560), (0.5, 1_331_592), (0.25, 470_072)],
    )
    def test_published_size(self, widen_factor, parameters):
        model = MobileNetV1(widen_factor=widen_factor)
        classifier = nn.Linear(int(1024 * widen_factor), 1000)
        count = sum(p.numel() for m in (model, classifier) for p in m.parameters())
        assert count == parameters

    def test_published_multiply_accumulates(self):
        """569 million at 224 pixels, classifier included, without what batch norms cost."""
        macs = [1024 * 1000]

        def count(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            macs.append(output[0].numel() * layer.weight[0].numel())

        model = MobileNetV1().eval()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
        with torch.no_grad():
            model(torch.rand(1, 3, 224, 224))
        assert round(sum(macs) / 1e6) == 569
        assert len(macs) == 1 + 27

    def test_stages_are_returned_at_their_strides(self):
        model = MobileNetV1(widen_factor=0.25, out_indices=(0, 1, 2, 3, 4)).eval()
        maps = model(torch.rand(2, 3, 64, 64))
        channels = [(16, 32), (32, 16), (64, 8), (128, 4), (256, 2)]
        assert [m.shape for m in maps] == [(2, c, size, size) for c, size in channels]
        (last,) = MobileNetV1(widen_factor=0.25).eval()(torch.rand(1, 3, 64, 64))
        assert last.shape == (1, 256, 2, 2)

    @pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain'])
    def test_a_config_of_either_package_builds_it(self, scope):
        pytest.importorskip(scope)
        with DefaultScope.overwrite_default_scope(scope):
            assert isinstance(MODELS.build(dict(type='MobileNetV1')), MobileNetV1)

    def test_frozen_stages_and_norms(self):
        model = MobileNetV1(widen_factor=0.25, frozen_stages=1, norm_eval=True).train()
        trained = {n.partition('.')[0] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {'layer3', 'layer4', 'layer5'}
        assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        assert model.layer3.training
        assert all(p.requires_grad for p in MobileNetV1(widen_factor=0.25).train().parameters())

    def test_initial_weights(self):
        model = MobileNetV1(widen_factor=0.25)
        before = model.conv1.conv.weight.clone()
        model.init_weights()
        assert not torch.equal(model.conv1.conv.weight, before)
        assert all((m.weight == 1).all() for m in model.modules() if isinstance(m, nn.BatchNorm2d))

    @pytest.mark.parametrize(
        'settings', [dict(out_indices=(5,)), dict(frozen_stages=5), dict(out_indices=(-1,))]
    )
    def test_a_stage_that_there_is_not(self, settings):
        with pytest.raises(ValueError, match=f'{next(iter(settings))}=.* must be among'):
            MobileNetV1(**settings)

    def test_frozen_stages_are_frozen_from_the_beginning(self):
        """Before anyone asks which layers are trained."""
        model = MobileNetV1(widen_factor=0.25, frozen_stages=4)
        assert not any(p.requires_grad for p in model.parameters())

    @pytest.mark.parametrize('indices', [4, ()])
    def test_no_stages(self, indices):
        with pytest.raises(ValueError, match=r'out_indices=.* must be among'):
            MobileNetV1(out_indices=indices)

    @pytest.mark.parametrize('factor', [0, -1.0, float('inf'), float('nan'), '0.5', None])
    def test_no_width(self, factor):
        with pytest.raises(ValueError, match=r'widen_factor=.* must be a number above 0'):
            MobileNetV1(widen_factor=factor)


@pytest.mark.parametrize('ours', [True, False])
def test_another_ones_name_is_left_and_said(monkeypatch, ours):
    """A copy of this file, as an export has it, is no other."""

    class MobileNetV1Of:  # of another package
        arch_settings = MobileNetV1.arch_settings if ours else ()

    monkeypatch.setitem(MODELS.module_dict, 'MobileNetV1', MobileNetV1Of)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        runpy.run_path(mobilenet_v1.__file__)
    said = [str(one.message) for one in caught if 'MobileNetV1' in str(one.message)]
    assert MODELS.module_dict['MobileNetV1'] is MobileNetV1Of
    assert len(said) == (0 if ours else 1)
    assert ours or 'registered first' in said[0]
