# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import copy
import doctest

import numpy as np
import pytest
import torch

from _utils.nets import chain, random_choice, randomise, runs, trace
from _utils.tracing_cases import CASES
from mmdet_adasap.errors import StructureError
from mmdet_adasap.pruning import (
    MagnitudeImportance,
    Pruner,
    check_structure,
    cut,
    indices_from_masks,
    masks_from_structure,
)
from mmdet_adasap.pruning import structure as structure_module
from mmdet_adasap.pruning.structure import compose, digest, is_cut, relative_to

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def pruned() -> tuple[Pruner, dict]:
    pruner = Pruner(chain(), runs(X), dict(params=0.5), MagnitudeImportance())
    pruner.prune_to(0.5)
    return pruner, pruner.structure('prune')


@pytest.mark.parametrize(
    'name', ['flatten_to_linear', 'channel_shuffle', 'concatenation', 'depthwise_with_multiplier']
)
def test_keep_and_kept_say_the_same(name):
    model = randomise(CASES[name][0]())
    channels = trace(model, torch.randn(2, 3, 6, 6))
    for seed, fraction in enumerate((0.0, 0.3, 0.7, 1.0)):
        kept = random_choice(channels, fraction, seed)
        keep = indices_from_masks(model, channels.groups, kept)
        again = masks_from_structure(channels.groups, keep)
        assert [k.tolist() for k in again] == [k.tolist() for k in kept]
        assert indices_from_masks(model, channels.groups, again) == keep
    assert keep == {}


def test_keep_has_every_axis_that_shrinks_alone():
    channels = trace(chain(), X)
    kept = [np.arange(8) < 6, np.ones(12, dtype=bool), np.arange(10) != 4]
    six = list(range(6))
    assert indices_from_masks(chain(), channels.groups, kept) == {
        'conv1.weight': {0: six},
        'bn1.weight': {0: six},
        'bn1.bias': {0: six},
        'bn1.running_mean': {0: six},
        'bn1.running_var': {0: six},
        'conv2.weight': {0: six, 1: six},
        'conv2.bias': {0: six},
        'bn2.weight': {0: six},
        'bn2.bias': {0: six},
        'bn2.running_mean': {0: six},
        'bn2.running_var': {0: six},
        'conv3.weight': {1: six},
        'fc.weight': {0: [0, 1, 2, 3, 5, 6, 7, 8, 9]},
        'fc.bias': {0: [0, 1, 2, 3, 5, 6, 7, 8, 9]},
        'head.weight': {1: [0, 1, 2, 3, 5, 6, 7, 8, 9]},
    }


def test_it_is_plain_data(tmp_path):
    _, structure = pruned()
    torch.save({'meta': {'mmdet_adasap': structure}}, tmp_path / 'model.pth')
    loaded = torch.load(tmp_path / 'model.pth', weights_only=True)['meta']['mmdet_adasap']
    assert loaded == structure
    check_structure(loaded)

    def kinds(value):
        if isinstance(value, dict):
            return {type(value)} | set().union(*map(kinds, [*value, *value.values()]), set())
        if isinstance(value, list):
            return {type(value)} | set().union(*map(kinds, value), set())
        return {type(value)}

    assert kinds(structure) <= {dict, list, str, int, float}
    assert not is_cut(structure)


def test_a_fresh_model_takes_the_shape_without_a_trace(monkeypatch):
    pruner, _ = pruned()
    structure = pruner.cut()
    assert is_cut(structure)
    monkeypatch.setattr('mmdet_adasap.pruning.analysis.trace_channels', None)
    fresh = randomise(chain(), seed=9)
    cut(fresh, structure['keep'], structure['attrs'])
    fresh.load_state_dict(pruner.model.state_dict())
    assert torch.equal(fresh.eval()(X), pruner.model.eval()(X))
    for a, b in zip(fresh.modules(), pruner.model.modules(), strict=True):
        assert a.extra_repr() == b.extra_repr()
    reached = sum(p.numel() for p in fresh.parameters()) / structure['dense']['params']
    assert reached == structure['reached']['params'] <= structure['target']['params'] == 0.5


def pruned_again() -> dict:
    pruner, _ = pruned()
    pruner.cut()
    again = Pruner(pruner.model, runs(X), dict(params=0.3), MagnitudeImportance())
    again.prune_to(0.3)
    return again.structure('prune')


def test_examples_of_the_docstrings():
    assert doctest.testmod(structure_module) == (0, 2)


def test_what_is_left_to_do_after_a_first_cut():
    structure = pruned_again()
    first = structure['start']['keep']
    assert is_cut(structure['start'])
    rest = relative_to(structure['keep'], first)
    assert rest
    assert compose(first, rest) == structure['keep']
    assert relative_to(first, first) == {}
    assert relative_to(structure['keep'], {}) == structure['keep']


def change(*path_and_value):
    *path, last, value = path_and_value

    def apply(structure):
        for key in path:
            structure = structure[key]
        if value is change:
            del structure[last]
        else:
            structure[last] = value

    return apply


MALFORMED = {
    'nothing reached': (change('reached', 'params', 0.0), r'reached\.params is 0\.0, no fraction'),
    'reached as NaN': (change('reached', 'flops', float('nan')), r'reached\.flops is nan'),
    'reached as text': (change('reached', 'flops', 'x'), r"reached\.flops is 'x'"),
    'reached as true': (change('reached', 'params', True), r'reached\.params is True'),
    'grown': (change('reached', 'params', 1.5), r'reached\.params is 1\.5'),
    'no dense size': (change('dense', 'flops', 0), r'dense\.flops is 0'),
    'dense as a fraction': (change('dense', 'params', 0.5), r'dense\.params is 0\.5'),
    'no version': (change('version', change), r'version is None'),
    'newer version': (change('version', 2), r'version is 2 and this package reads 1'),
    'no phase': (change('phase', change), r'phase is None'),
    'unknown phase': (change('phase', 'rest'), r"phase is 'rest', not one of"),
    'phase that is a list': (change('phase', ['prune']), r'phase is'),
    **{
        f'no {key}': (change(key, change), rf'\.{key} is missing')
        for key in ('target', 'reached', 'dense', 'keep', 'attrs')
    },
    'keep is a list': (change('keep', []), r'\.keep is missing or not a dict'),
    'tensor is a list': (change('keep', 'fc.weight', [1]), r"keep\['fc.weight'\] is not a dict"),
    'axis is text': (change('keep', 'fc.weight', {'0': [1]}), r"keep\['fc.weight'\]\['0'\]"),
    'axis is true': (change('keep', 'fc.weight', {True: [1]}), r"keep\['fc.weight'\]\[True\]"),
    'indices are a tuple': (change('keep', 'fc.weight', 0, (1, 2)), r"keep\['fc.weight'\]\[0\]"),
    'indices are an array': (
        change('keep', 'fc.weight', 0, np.arange(3)),
        r"keep\['fc.weight'\]\[0\] is not a list",
    ),
    'index is a float': (change('keep', 'fc.weight', 0, [0, 1.0]), r'is not a list of integers'),
    'index is true': (change('keep', 'fc.weight', 0, [False, True]), r'not a list of integers'),
    'no index': (change('keep', 'fc.weight', 0, []), r'must be one or more ascending'),
    'negative index': (change('keep', 'fc.weight', 0, [-1, 0]), r'ascending'),
    'falling indices': (change('keep', 'fc.weight', 0, [2, 1]), r'ascending'),
    'index twice': (change('keep', 'fc.weight', 0, [1, 1]), r'ascending'),
    'attrs of a module': (change('attrs', 'fc', 3), r"attrs\['fc'\] is not a dict of integers"),
    'attr is a float': (change('attrs', 'fc', {'a': 1.0}), r"attrs\['fc'\]"),
    'attr is true': (change('attrs', 'fc', {'a': True}), r"attrs\['fc'\]"),
}


@pytest.fixture(scope='module')
def good():
    return pruned()[1]


@pytest.mark.parametrize('name', MALFORMED)
def test_malformed(good, name):
    damage, message = MALFORMED[name]
    structure = copy.deepcopy(good)
    check_structure(structure)
    damage(structure)
    with pytest.raises(StructureError, match=r'^mmdet_adasap\..*' + message.lstrip(r'\.')):
        check_structure(structure)


def regrown(structure):
    first = structure['start']['keep']['conv1.weight'][0]
    structure['keep']['conv1.weight'][0] = [i for i in range(8) if i not in first]
    structure['digest'] = digest(structure)


def forgetful(structure):
    del structure['keep']['conv1.weight']
    structure['digest'] = digest(structure)


MALFORMED_START = {
    'no dict': (change('start', 3), r"start has the phase None beside 'prune'"),
    'itself': (lambda s: s.__setitem__('start', s), r"start has the phase 'prune' beside"),
    'not cut': (
        change('start', 'phase', 'warmup'),
        r"start has the phase 'warmup' beside 'prune'",
    ),
    'beside a cut model': (change('phase', 'finetune'), r"start has the phase 'finetune' beside"),
    'damaged': (change('start', 'keep', 'conv1.weight', 0, [0]), r'digest does not fit'),
    'kept what is gone': (regrown, r"keep\['conv1.weight'\]\[0\] keeps what .*start has removed"),
    'says nothing': (forgetful, r"keep\['conv1.weight'\] does not say what is kept along axis 0"),
}


@pytest.mark.parametrize('name', MALFORMED_START)
def test_malformed_start(name):
    damage, message = MALFORMED_START[name]
    structure = pruned_again()
    check_structure(structure)
    damage(structure)
    with pytest.raises(StructureError, match=message):
        check_structure(structure)


@pytest.mark.parametrize('value', [None, 3, 'text', []])
def test_not_a_dict(value):
    with pytest.raises(StructureError, match=r"\['mmdet_adasap'\] is not a dict"):
        check_structure(value)


def test_kept_refuses_what_another_model_wrote():
    channels = trace(chain(), X)
    kept = [np.arange(8) < 6, np.ones(12, dtype=bool), np.arange(10) < 5]
    good = indices_from_masks(chain(), channels.groups, kept)

    def refused(named, **changes):
        keep = {**good, **changes}
        keep = {name: axes for name, axes in keep.items() if axes}
        with pytest.raises(StructureError, match=named):
            masks_from_structure(channels.groups, keep)

    refused('bn1.bias', **{'bn1.bias': None})
    refused('bn2.weight', **{'bn2.weight': {0: [0, 1, 2]}})
    refused('fc.weight', **{'fc.weight': {0: [0, 1, 2, 3, 4], 1: list(range(47))}})
    refused('conv9.weight', **{'conv9.weight': {0: [0]}})
    refused(r"head.weight'\]\[0\]", **{'head.weight': {0: [0], 1: [0, 1, 2, 3, 4]}})
