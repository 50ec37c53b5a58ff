# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import re

import pytest
import torch

from mmdet_adasap.pruning.rules import EXTENSION_RULES, RULES, extension_rule, rule
from mmdet_adasap.pruning.rules.names import check_operator

WRONG = {
    'typo::x': "no operator has the namespace 'typo'",
    'rellu': "PyTorch has no such operator; did you mean 'aten::relu'?",
    'aten::rellu': "PyTorch has no such operator; did you mean 'aten::relu'?",
    'aten::add.Tensor': "'Tensor' is an overload, and a rule is for all of them; write 'aten",
    'torch::relu': "no operator has the namespace 'torch'; load the library that",
    'json::relu': "no operator has the namespace 'json'; load the library that",
    '::relu': "no operator has the namespace ''; load the library that",
    '': 'PyTorch has no such operator',
}


@pytest.mark.parametrize('name', WRONG)
def test_a_rule_for_no_operator_is_refused(name):
    rules = dict(RULES)
    full = name if '::' in name else f'aten::{name}'
    message = re.escape(f'rule({full!r}): {WRONG[name]}')
    with pytest.raises(ValueError, match=f'^{message}.*$'):
        rule('relu', name)(lambda call: None)
    assert rules == RULES


def test_a_rule_for_a_package_that_is_not_loaded_yet(monkeypatch, tmp_path):
    """Its operators are registered when it is imported."""
    (tmp_path / 'operators_of_tomorrow.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr('mmdet_adasap.pruning.rules.call.RULES', {})
    rule('operators_of_tomorrow::x')(lambda call: None)


def test_a_rule_for_all_operators_of_torchvision(monkeypatch):
    pytest.importorskip('torchvision.ops')
    monkeypatch.setitem(RULES, 'torchvision::nms', None)
    rule('torchvision::nms')(lambda call: None)
    with pytest.raises(ValueError, match="did you mean 'torchvision::roi_align'"):
        rule('torchvision::roi_allign')(lambda call: None)


def test_an_extension_rule_for_no_function_is_refused(monkeypatch):
    pytest.importorskip('mmcv._ext')
    rules = dict(EXTENSION_RULES)
    with pytest.raises(ValueError, match="no such function; did you mean 'roi_align_forward'"):
        extension_rule('roi_allign_forward')(lambda call: None)
    assert rules == EXTENSION_RULES
    monkeypatch.setitem(EXTENSION_RULES, 'nms', None)
    extension_rule('nms')(lambda call: None)


@pytest.mark.parametrize('decorator', [rule, extension_rule])
@pytest.mark.parametrize('names', [(), (len,), (3,), (None,)])
def test_a_decorator_without_a_name_is_refused(decorator, names):
    with pytest.raises(ValueError, match=f'^@{decorator.__name__} takes one or more names'):
        decorator(*names)


# The first release with all operators of attention and batch norm that there are rules for.
@pytest.mark.skipif(torch.__version__ < (2, 6), reason='this PyTorch has no such operators yet')
def test_rules_of_the_package_are_for_operators_that_exist():
    pytest.importorskip('torchvision.ops')
    for name in RULES:
        check_operator(name)
