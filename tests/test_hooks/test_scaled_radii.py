# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Runs whose radii follow the ratio of losses: killed and resumed, and resumed from others."""

import math

import pytest
import torch

from _utils.adasap_runs import assert_same_weights, kill_after, train
from _utils.toy import settings
from mmdet_adasap.errors import StructureError
from mmdet_adasap.hooks import AdaSAPHook

SCALED = dict(
    perturbation=dict(type='AdaptivePerturbation', loss_ratio=1.3),
    finetune=dict(type='UniformPerturbation', loss_ratio=1.2, scope='layer', asam=True),
)
FIXED = dict(
    perturbation=dict(type='AdaptivePerturbation'),
    finetune=dict(type='UniformPerturbation', scope='layer', asam=True),
)


def controllers(runner) -> dict:
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, AdaSAPHook)]
    found = {key: getattr(hook.settings, key).controller for key in SCALED}
    return {key: controller and controller.state_dict() for key, controller in found.items()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return train(settings(tmp_path_factory.mktemp('whole'), hook=SCALED))


class TestResume:
    @pytest.mark.parametrize(
        'killed_at', [13, *(pytest.param(i, marks=pytest.mark.long) for i in (4, 19, 31))]
    )
    def test_equals_the_uninterrupted_run(self, tmp_path, whole, killed_at):
        """In warm-up and prune phase one scale goes on, in fine-tuning the other."""
        cfg = settings(tmp_path, hook=SCALED)
        kill_after(cfg, killed_at)
        resumed = train(cfg | dict(resume=True))
        assert_same_weights(resumed.model, whole.model)
        assert controllers(resumed) == controllers(whole)
        for state in controllers(whole).values():
            assert state['steps'] == 18
            assert state['log_scale'] > math.log(0.01) + 0.5

    def test_from_a_run_with_fixed_radii(self, tmp_path):
        """The radii may change when a run is resumed, and the scale begins then."""
        kill_after(settings(tmp_path, hook=FIXED), 13)
        resumed = train(settings(tmp_path, hook=SCALED, resume=True))
        assert controllers(resumed)['perturbation']['steps'] == 6

    def test_with_fixed_radii(self, tmp_path):
        kill_after(settings(tmp_path, hook=SCALED), 13)
        resumed = train(settings(tmp_path, hook=FIXED, resume=True))
        assert controllers(resumed) == dict(perturbation=None, finetune=None)

    @pytest.mark.parametrize('bad', [7, dict(log_scale=math.nan, steps=1.0)])
    def test_a_state_of_something_else(self, tmp_path, bad):
        cfg = settings(tmp_path, hook=SCALED)
        kill_after(cfg, 13)
        file = tmp_path / 'epoch_2.pth'
        checkpoint = torch.load(file, weights_only=False)
        checkpoint['mmdet_adasap']['radii']['perturbation'] = bad
        torch.save(checkpoint, file)
        with pytest.raises(StructureError, match=r'radii\.perturbation of the checkpoint'):
            train(cfg | dict(resume=True))


def test_without_the_hook(tmp_path):
    """SAM for any model: the wrapper keeps the scale beside the optimizer's state."""
    wrapper = settings('')['optim_wrapper'] | dict(
        perturbation=dict(type='UniformPerturbation', asam=True, loss_ratio=1.3)
    )

    def config(folder):
        cfg = settings(folder, optim_wrapper=wrapper)
        del cfg['default_hooks']['adasap']
        return cfg

    whole = train(config(tmp_path / 'whole'))
    kill_after(config(tmp_path / 'parts'), 13)
    resumed = train(config(tmp_path / 'parts') | dict(resume=True))
    assert_same_weights(resumed.model, whole.model)
    found = [run.optim_wrapper.perturbation.controller.state_dict() for run in (resumed, whole)]
    assert found[0] == found[1]
    assert found[0]['steps'] == 36
