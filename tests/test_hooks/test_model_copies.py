# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A copy of the network beside it, inside the model."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel, ExponentialMovingAverage
from torch import nn

from _utils.adasap_runs import build
from _utils.toy import ToyModel, settings
from mmdet_adasap.hooks.model_copies import check_no_copy


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


class MeanTeacher(BaseModel):
    """Its student learns; the teacher follows, and is what validation runs."""

    def __init__(self, names=('student', 'teacher'), predicts=1, is_frozen=True):
        super().__init__()
        for name in names:
            setattr(self, name, ToyModel())
        self.names, self.predicts = names, predicts
        getattr(self, names[1]).requires_grad_(not is_frozen)

    def forward(self, inputs, labels=None, mode='tensor'):
        used = getattr(self, self.names[0 if mode == 'loss' else self.predicts])
        return used(inputs, labels, mode)


class Momentum(BaseModel):
    """As MoCo of mmpretrain."""

    def __init__(self):
        super().__init__()
        self.backbone = ToyModel()
        self.momentum_encoder = ExponentialMovingAverage(self.backbone)

    def forward(self, inputs, labels=None, mode='tensor'):
        return self.backbone(inputs, labels, mode)


class Series(BaseModel):
    """Two equal blocks, the first of them frozen."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1))
            for _ in range(2)
        )
        self.head = nn.Linear(8, 4)
        frozen(self.first)

    def forward(self, inputs, labels=None, mode='tensor'):
        logits = self.head(self.second(self.first(self.stem(inputs))).mean((2, 3)))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(logits, labels))
        return [dict(logits=row) for row in logits] if mode == 'predict' else logits


REFUSED = {
    'teacher': (MeanTeacher, 'teacher is a copy of student'),
    'student predicts': (lambda: MeanTeacher(predicts=0), 'teacher is a copy of student'),
    'teacher not frozen': (lambda: MeanTeacher(is_frozen=False), 'teacher is a copy of student'),
    'other names': (
        lambda: MeanTeacher(('query', 'key')),
        "key is a copy of query .* prefix='query'",
    ),
    'moving average': (Momentum, "momentum_encoder is a copy .* prefix='backbone'"),
}


@pytest.mark.parametrize('case', REFUSED)
def test_run_is_refused_at_its_start(tmp_path, case):
    make, message = REFUSED[case]
    runner = build(settings(tmp_path))
    runner.model = make()
    runner.optim_wrapper = copy.deepcopy(settings(tmp_path)['optim_wrapper'])
    with pytest.raises(ValueError, match=f'^model: {message}'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_equal_blocks_of_one_network_are_no_copies(tmp_path):
    runner = build(settings(tmp_path, hook=dict(target=dict(params=0.5))))
    runner.model = Series()
    runner.optim_wrapper = settings(tmp_path)['optim_wrapper']
    dense = sum(p.numel() for p in runner.model.second.parameters())
    runner.train()
    assert sum(p.numel() for p in runner.model.second.parameters()) < dense
    assert runner.model.first[0].out_channels == 8


def test_a_network_without_frozen_layers_is_not_run():
    check_no_copy(ToyModel(), lambda: pytest.fail('it was run'))
    check_no_copy(nn.Sequential(ToyModel(), ToyModel()), lambda: pytest.fail('it was run'))
    # Single layers are alike by chance.
    check_no_copy(nn.Sequential(nn.Linear(4, 4), frozen(nn.Linear(4, 4))), lambda: {'0'})
    # A word is found as a whole: there is "ema" in "semantic".
    heads = nn.ModuleDict({'semantic': frozen(ToyModel()), 'other': ToyModel()})
    check_no_copy(heads, lambda: {'semantic', 'other'})


def test_a_fixed_teacher_of_another_size_is_no_copy():
    """Even if its neck is that of the student, as in LAD of mmdet."""
    neck = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1))
    parts = dict(backbone=ToyModel(), neck=neck, teacher_backbone=frozen(ToyModel(width=16)))
    parts['teacher_neck'] = frozen(copy.deepcopy(neck))
    check_no_copy(nn.ModuleDict(parts), lambda: {'backbone', 'neck'})
    del parts['teacher_backbone']
    with pytest.raises(ValueError, match=r'^model: teacher_neck is a copy of neck'):
        check_no_copy(nn.ModuleDict(parts), lambda: {'backbone', 'neck'})


def test_soft_teacher_of_mmdet():
    mmdet = pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    configs = Path(mmdet.__file__).parent / '.mim' / 'configs'
    detector = Config.fromfile(configs / 'yolox/yolox_tiny_8xb8-300e_coco.py').model
    model = MODELS.build(
        dict(
            type='SemiBaseDetector',
            detector=detector,
            data_preprocessor=dict(
                type='MultiBranchDataPreprocessor',
                data_preprocessor=dict(type='DetDataPreprocessor'),
            ),
            semi_train_cfg=dict(freeze_teacher=True),
            semi_test_cfg=dict(predict_on='teacher'),
        )
    )
    with pytest.raises(ValueError, match=r'^model: teacher is a copy of student'):
        check_no_copy(model, lambda: {'teacher'})


def test_the_remedy_loads_the_student(tmp_path):
    """init_cfg with a prefix, as the message says."""
    whole = MeanTeacher()
    torch.save(dict(state_dict=whole.state_dict()), tmp_path / 'semi.pth')
    student = ToyModel()
    student.init_cfg = dict(
        type='Pretrained', prefix='student', checkpoint=str(tmp_path / 'semi.pth')
    )
    student.init_weights()
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, whole.student.state_dict()[name])
