# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The warning of a model that an event has ruined."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from _utils.adasap_runs import build, train
from _utils.toy import settings
from mmdet_adasap.hooks.collapse_watch import COLLAPSE, CollapseWatch
from mmdet_adasap.pruning import MagnitudeImportance, TaylorImportance


def pruner(importance=MagnitudeImportance, kept=(8, 1, 2, 6)):
    """What the watch reads of a Pruner whose groups had 8 channels each."""
    groups = [SimpleNamespace(name=f'layer{i}', size=8) for i in range(len(kept))]
    masks = SimpleNamespace(kept=[np.arange(8) < n for n in kept])
    return SimpleNamespace(
        channels=SimpleNamespace(groups=groups), masks=masks, importance=importance()
    )


def feed(watch, *losses):
    """Add losses and return the warnings that come."""
    found = [watch.add({'loss': torch.tensor(loss)}) for loss in losses]
    return [text for text in found if text is not None]


def test_warns_once_of_a_jump_and_names_the_three_layers_cut_deepest():
    watch = CollapseWatch(interval=3)
    assert not feed(watch, 9.0, 1.0, 1.0, 1.0)  # the first is no more among the last three
    watch.start_event(1, pruner())
    assert not feed(watch, 1.2, 1.1, 1.0)
    watch.start_event(2, pruner())
    (text,) = feed(watch, 4.0, 3.0, 2.0, 9.0, 9.0)
    assert 'after pruning event 2 the loss is 3, before event 1 it was 1: this looks like' in text
    deepest = 'layer1 (8 -> 1 channels), layer2 (8 -> 2 channels), layer3 (8 -> 6 channels)'
    assert deepest in text
    assert 'layer0' not in text
    assert 'max_pruning_ratio' in text
    assert "importance=dict(type='TaylorImportance')" in text


def test_counts_from_before_the_first_event():
    """Small steps that each look harmless add up."""
    watch = CollapseWatch(interval=2)
    feed(watch, 1.0, 1.0)
    warnings = []
    for event, loss in enumerate((1.2, 1.4, COLLAPSE), start=1):
        watch.start_event(event, pruner())
        warnings += feed(watch, loss, loss)
    (text,) = warnings
    assert 'event 3' in text


def test_a_loss_near_0_may_rise():
    """By heart is not how it has to know its training set."""
    watch = CollapseWatch(interval=2)
    feed(watch, 0.01, 0.01)
    watch.start_event(1, pruner())
    assert not feed(watch, 0.5, 0.5)
    watch.start_event(2, pruner())
    assert feed(watch, 1.5, 1.5)


def test_does_not_advise_what_is_set():
    watch = CollapseWatch(interval=1)
    feed(watch, 1.0)
    watch.start_event(1, pruner(TaylorImportance))
    (text,) = feed(watch, 5.0)
    assert 'importance=' not in text


@pytest.mark.parametrize('outputs', [None, {}, {'loss': None}, {'loss_cls': 1.0}])
def test_says_nothing_of_a_model_that_returns_no_loss(outputs):
    watch = CollapseWatch(interval=1)
    assert watch.add(outputs) is None
    watch.start_event(1, pruner())
    assert watch.add(outputs) is None


def test_keeps_no_graph():
    watch = CollapseWatch(interval=5)
    watch.add({'loss': torch.ones((), requires_grad=True) * 2})
    assert not watch._losses[0].requires_grad


def test_a_run_that_is_ruined_says_so(tmp_path, caplog):
    """A trained toy loses its classes when a criterion removes the best channels first."""
    from mmdet_adasap.registry import IMPORTANCES

    @IMPORTANCES.register_module(name='BestFirst', force=True)
    class BestFirst(MagnitudeImportance):
        def scores(self, group, tensors, kept):
            return -super().scores(group, tensors, kept)

    dense = settings(tmp_path / 'dense', train_cfg=dict(by_epoch=True, max_epochs=25))
    del dense['default_hooks']['adasap']
    dense['optim_wrapper'] = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9))
    dense['param_scheduler'] = None
    dense['default_hooks']['checkpoint']['interval'] = 25
    train(dense)
    hook = dict(importance=dict(type='BestFirst'), target=dict(params=0.1), interval=4)
    cfg = settings(tmp_path / 'slim', hook, load_from=str(tmp_path / 'dense' / 'epoch_25.pth'))
    cfg['optim_wrapper']['optimizer']['lr'] = 1e-4
    runner = build(cfg)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert 'looks like a collapse' in caplog.text
