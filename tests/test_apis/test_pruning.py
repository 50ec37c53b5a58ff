# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import json
import math
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from _utils.toy import ToyModel
from mmdet_adasap.apis import apply_structure, build_dense, find_image_size, prune_model
from mmdet_adasap.errors import EquivalenceError, StructureError, UnreachableTargetError
from mmdet_adasap.integration.configs import read_config
from mmdet_adasap.models import synthetic_batch
from mmdet_adasap.pruning import TaylorImportance
from mmdet_adasap.pruning.analysis import find_channels

IMAGES = torch.randn(2, 3, 8, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    ).eval()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class TestPruneModel:
    def test_bare_module(self):
        model, dense = net(), net()
        structure = prune_model(model, inputs=IMAGES, target=dict(params=0.6), round_to=4)
        assert model[0].out_channels % 4 == 0
        assert parameters(model) == round(structure['reached']['params'] * parameters(dense))
        assert 0.4 < structure['reached']['params'] <= 0.6
        apply_structure(dense, json_round_trip(structure), mask=True)
        torch.testing.assert_close(model(IMAGES), dense(IMAGES))

    @pytest.mark.parametrize('data', [None, dict(inputs=IMAGES)])
    def test_model_of_mmengine(self, data):
        model = ToyModel()
        model.dataset_meta = {}
        if data is None:
            pytest.importorskip('mmpretrain')
            with pytest.raises(ValueError, match=r'runs on no square image'):
                prune_model(model)
            return
        structure = prune_model(model, data, target=dict(params=0.5), round_to=1)
        assert structure['reached']['params'] <= 0.5

    def test_error_names_an_argument_that_there_is(self):
        given = dict(inputs=IMAGES, target=dict(params=0.05), round_to=1)
        with pytest.raises(UnreachableTargetError, match='raise max_pruning_ratio towards 1'):
            prune_model(net(), **given)
        structure = prune_model(net(), **given, max_pruning_ratio=1)
        assert structure['reached']['params'] <= 0.05

    def test_again_relative_to_the_dense_one(self):
        model, dense = net(), net()
        prune_model(model, inputs=IMAGES, target=dict(params=0.7), round_to=1)
        middle = copy.deepcopy(model)
        structure = prune_model(model, inputs=IMAGES, target=dict(params=0.4), round_to=1)
        assert 0.35 < parameters(model) / parameters(dense) <= 0.4
        assert structure['dense']['params'] == parameters(dense)
        for name, axes in structure['keep'].items():
            tensor = dense.get_parameter(name) if 'running' not in name else None
            if tensor is not None:
                for axis, index in axes.items():
                    assert max(index) < tensor.shape[axis]
        fresh = net()
        apply_structure(fresh, structure)
        for (name, left), right in zip(
            model.state_dict().items(), fresh.state_dict().values(), strict=True
        ):
            assert torch.equal(left, right), name  # the same weights: the net is seeded
        with pytest.raises(ValueError, match=r'cannot be reached'):
            prune_model(middle, inputs=IMAGES, target=dict(params=0.001))

    def test_target_above_what_is_left_changes_nothing(self):
        model = net()
        prune_model(model, inputs=IMAGES, target=dict(params=0.5), round_to=1)
        before = copy.deepcopy(model.state_dict())
        structure = prune_model(model, inputs=IMAGES, target=dict(params=0.9), round_to=1)
        assert structure['reached']['params'] <= 0.5
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])

    @pytest.mark.parametrize(
        ('kwargs', 'message'),
        [
            (dict(inputs=None), 'inputs is needed for Sequential'),
            (dict(data=IMAGES), 'data and inputs are both given'),
            (dict(inputs=None, data=IMAGES), 'inputs is needed for Sequential instead of data'),
            (dict(inputs=None, data=IMAGES), 'prune_model(model, inputs=torch.rand('),
            (dict(inputs=None, data=IMAGES, target=0.5), 'write target=dict(params=0.5) or'),
            (
                dict(target=0.5),
                'target=0.5 must be a dict with one or more of the keys',
            ),
            (dict(target=IMAGES), 'target=a Tensor must be a dict'),
            (
                dict(inputs=None, data=dict(params=0.3), target=IMAGES),
                "write prune_model(model, target={'params': 0.3}, inputs=...)",
            ),
            (dict(data=dict(flops=0.3)), "write prune_model(model, target={'flops': 0.3})"),
            (dict(forward=lambda m: m(IMAGES)), 'forward is given with data or inputs; give one'),
            (dict(inputs=None, forward=IMAGES), 'forward is a Tensor, and must be a function'),
            (
                dict(inputs=None, forward=lambda m: m(IMAGES[:, :1])),
                'forward: Sequential does not run with it (RuntimeError: ',
            ),
            (dict(inputs=None, forward=lambda m: None), 'forward must return the raw output'),
            (dict(importance='size'), "importance='size' is unknown; use one of ['magnitude'"),
            (dict(importance='taylor'), "importance='taylor' needs training steps"),
            (dict(importance=TaylorImportance()), 'needs training steps'),
            (dict(importance=dict(type='X')), "importance.type='X' is unknown"),
            (dict(target=dict(params=2)), 'target='),
            (dict(round_to=0), 'round_to=0 must be an integer of at least 1'),
            (dict(round_to=2.5), 'round_to=2.5 must be'),
        ],
    )
    def test_bad_arguments(self, kwargs, message):
        model = net()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=re.escape(message)):
            prune_model(model, **{'inputs': IMAGES, **kwargs})
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_a_target_that_is_reached_already_is_told():
    model = net()
    prune_model(model, inputs=IMAGES, target=dict(params=0.5), round_to=1)
    with pytest.warns(
        UserWarning, match=r'^target=dict\(params=0\.9\) removes nothing: params 0\.\d+ of'
    ):
        prune_model(model, inputs=IMAGES, target=dict(params=0.9), round_to=1)


class Detector(nn.Module):
    """Gives the best boxes, as torchvision's SSD; scores differ by rounding alone."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.boxes = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 4, 1)

    def raw(self, x):
        y = self.features(x)
        return y.sum(1).flatten(1), self.boxes(y).flatten(2)

    def forward(self, x):
        scores, boxes = self.raw(x)
        scores, places = torch.cat([scores, (3 * scores) / 3], 1).topk(9)
        return scores, boxes.gather(2, (places % 36)[:, None].expand(-1, 4, -1))


@pytest.mark.parametrize('raw', [False, True])
def test_outputs_behind_a_selection(raw):
    torch.manual_seed(0)
    model = Detector()
    given = dict(forward=lambda model: model.raw(IMAGES)) if raw else dict(inputs=IMAGES)
    prune_model(model, target=dict(params=0.3), round_to=1, **given)
    assert model.features.out_channels < 32
    assert model.boxes.out_channels == 4


class TestApplyStructure:
    def test_slim_equals_masked(self):
        structure = prune_model(net(), inputs=IMAGES, round_to=1)
        slim, masked = net(), net()
        apply_structure(slim, structure)
        apply_structure(masked, structure, mask=True)
        assert parameters(masked) == structure['dense']['params'] > parameters(slim)
        torch.testing.assert_close(slim(IMAGES), masked(IMAGES))

    def test_other_model(self):
        structure = prune_model(net(), inputs=IMAGES)
        other = nn.Sequential(nn.Conv2d(3, 16, 3))
        with pytest.raises(StructureError, match=r'of a model of \d+ parameters and this one has'):
            apply_structure(other, structure)
        with pytest.raises(StructureError, match=r'version'):
            apply_structure(net(), {**structure, 'version': 99})


def json_round_trip(structure: dict) -> dict:
    return json.loads(json.dumps(structure))


class Hidden(nn.Module):
    """A residual branch that counts its channels, behind a norm whose scale starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 1)
        self.outer, self.norm = nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 2, 1)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        x = self.first(x)
        y = self.inner(x)
        return self.head(x + self.norm(self.outer(y / y.shape[1])))


def test_nothing_hides_behind_a_scale_of_zero():
    channels = find_channels(Hidden().eval(), lambda model: model(IMAGES))
    assert channels.excluded
    assert 'inner' not in [group.name for group in channels.groups]


@pytest.mark.parametrize('groups', [2, 4, 8, 32])
def test_grouped_convolutions_again_and_again(groups):
    """They go on to shrink as they began, so that a dense model takes the last structure."""

    def grouped() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=groups), nn.Conv2d(32, 2, 1)
        ).eval()

    model = grouped()
    for fraction in (0.7, 0.45, 0.3):
        structure = prune_model(model, inputs=IMAGES, target=dict(params=fraction), round_to=1)
    fresh = grouped()
    apply_structure(fresh, structure)
    assert torch.equal(fresh(IMAGES), model(IMAGES))
    assert [str(m) for m in fresh.modules()] == [str(m) for m in model.modules()]


def test_linear_layers_on_sequences_fit():
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, 2)).eval()
    sequence = torch.randn(2, 5, 8)
    for fraction in (0.6, 0.3):
        prune_model(model, inputs=sequence, target=dict(params=fraction), round_to=1)
        for layer in (model[0], model[2], model[3]):
            assert (layer.out_features, layer.in_features) == layer.weight.shape


def test_flops_of_another_image_size():
    model = net()
    model[6] = nn.Linear(16, 10)
    model[5] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    prune_model(model, inputs=torch.randn(1, 3, 32, 32), target=dict(flops=0.6), round_to=1)
    structure = prune_model(
        model, inputs=torch.randn(1, 3, 16, 16), target=dict(flops=0.3), round_to=1
    )
    assert 0.2 < structure['reached']['flops'] <= 0.3


def test_a_cut_that_fails_leaves_the_model_as_it_was(monkeypatch):
    def fail(*args):
        raise EquivalenceError('no')

    model = net()
    before = copy.deepcopy(model.state_dict())
    monkeypatch.setattr('mmdet_adasap.pruning.pruner.verify_cut', fail)
    with pytest.raises(EquivalenceError):
        prune_model(model, inputs=IMAGES)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    model(IMAGES).sum().backward()
    assert all(p.grad.any() for p in model.parameters() if p.dim() > 1)


def test_prune_phase_structure_needs_mask():
    structure = {**prune_model(net(), inputs=IMAGES), 'phase': 'prune'}
    with pytest.raises(StructureError, match=r"phase is 'prune': .* use mask=True"):
        apply_structure(net(), structure)
    apply_structure(net(), structure, mask=True)


def test_a_model_that_writes_into_its_input():
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x):
            return self.net(x.mul_(1.5))

    images = IMAGES.clone()
    structure = prune_model(Writes(), inputs=images, round_to=4)
    assert structure['reached']['params'] <= 0.5
    assert torch.equal(images, IMAGES)


def exchange(index: list) -> None:
    """One kept channel for one that was removed; their number stays."""
    removed = min(set(range(16)) - set(index))
    index[:] = sorted({*index[1:], removed})


class TestDamagedStructures:
    @pytest.fixture
    def structure(self):
        return copy.deepcopy(prune_model(net(), inputs=IMAGES, round_to=1))

    @pytest.mark.parametrize(
        'damage',
        [
            lambda s: s['keep'].pop('0.weight'),
            lambda s: s['keep'].pop('1.running_var'),
            lambda s: s['keep']['3.weight'].pop(1),
            lambda s: s['attrs'].clear(),
            lambda s: exchange(s['keep']['3.weight'][1]),
        ],
    )
    def test_refused_by_its_digest(self, structure, damage):
        damage(structure)
        model = net()
        before = parameters(model)
        with pytest.raises(StructureError, match='digest does not fit'):
            apply_structure(model, structure)
        assert parameters(model) == before

    def test_refused_by_what_it_leaves(self, structure):
        del structure['digest'], structure['keep']['0.weight']
        with pytest.raises(StructureError, match=r'keep leaves \d+ parameters, and'):
            apply_structure(net(), structure)

    def test_kernels_have_no_channels(self, structure):
        del structure['digest'], structure['reached']['params']
        structure['keep']['0.weight'][2] = [0, 1]
        with pytest.raises(StructureError, match=r"keep\['0.weight'\]\[2\] would cut a kernel"):
            apply_structure(net(), structure)

    def test_by_hand_without_digest(self, structure):
        del structure['digest']
        apply_structure(net(), structure)

    def test_again_without_what_it_reached(self, structure):
        del structure['digest'], structure['reached']['params'], structure['reached']['flops']
        model = net()
        apply_structure(model, structure)
        with pytest.raises(StructureError, match='does not say what it reached'):
            prune_model(model, inputs=IMAGES, target=dict(params=0.3))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(importance='age'), "importance='age' is unknown"),
        (dict(importance=None), 'importance=None; name one of'),
        (dict(importance='taylor'), "importance='taylor' needs training steps"),
        (dict(target=dict(params='0.5')), 'params must be a fraction'),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        prune_model(net(), inputs=IMAGES, **arguments)


def test_names_of_criteria_and_numpy_numbers():
    prune_model(
        net(),
        inputs=IMAGES,
        importance='MagnitudeImportance',
        target=dict(params=np.float32(0.7)),
        round_to=1,
    )


@pytest.mark.parametrize('data', ['x', 5, [], {}, IMAGES])
def test_data_that_are_no_batch(data):
    pytest.importorskip('mmdet')
    from mmdet_adasap.apis import build_dense

    model = build_dense('configs/demo/dense_yolox_tiny-voc.py')
    with pytest.raises(ValueError, match=r'data is not a batch as YOLOX\.test_step takes it'):
        prune_model(model, data)


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (torch.randn(2, 4, 8, 8), 'inputs: Sequential does not run with them'),
        (torch.randn(2, 3, 2, 2), 'inputs: Sequential does not run with them'),
        (IMAGES.long(), 'inputs: Sequential does not run with them'),
        ('image.jpg', 'inputs: Sequential does not run with them'),
        ((), 'inputs: Sequential does not run with them'),
        (IMAGES * math.inf, 'inputs are empty, or hold an inf or a NaN'),
        (IMAGES[:0], 'inputs are empty, or hold an inf or a NaN'),
    ],
)
def test_inputs_that_the_model_does_not_take(inputs, message):
    with pytest.raises(ValueError, match=message):
        prune_model(net(), inputs=inputs)


def test_parameters_that_overlap_raise():
    model = net()
    model[3].weight = nn.Parameter(model[3].weight.data)
    model.other = nn.Conv2d(16, 16, 3)
    model.other.weight = nn.Parameter(model[3].weight.data[:])
    with pytest.raises(ValueError, match=r'3\.weight and other\.weight overlap in memory'):
        prune_model(model, inputs=IMAGES)


def test_nothing_of_the_model_reaches_what_it_returns():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 16)

        def forward(self, x):
            return x + 1

    with pytest.raises(UnreachableTargetError):
        prune_model(Constant(), inputs=torch.randn(2, 8))


def test_classifier_is_normalised_as_by_the_runner():
    """mmpretrain's configs say beside the model how images are normalised."""
    pytest.importorskip('mmpretrain')
    config = Config(
        dict(
            default_scope='mmpretrain',
            data_preprocessor=dict(num_classes=10, mean=[33.0], std=[78.0]),
            model=dict(
                type='ImageClassifier',
                backbone=dict(type='LeNet5', num_classes=10),
                head=dict(type='ClsHead'),
                train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)),
            ),
        )
    )
    model = build_dense(config)
    assert model.data_preprocessor.mean.flatten().tolist() == [33.0]
    assert find_image_size(model) == 32  # of one channel
    batch = model.data_preprocessor(synthetic_batch(model, 32, images=2), True)
    assert batch['data_samples'][0].gt_score.shape == (10,)


def test_a_config_of_a_package_has_its_scope():
    """Headless ones of mmpretrain name none."""
    pytest.importorskip('mmpretrain')
    assert read_config('mmpretrain::glip/glip-t_headless.py').default_scope == 'mmpretrain'
