# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The rule and the criterion that the README writes, as a reader would use them."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from mmdet_adasap.apis import prune_model
from mmdet_adasap.pruning import trace_channels
from mmdet_adasap.pruning.rules import RULES
from mmdet_adasap.registry import IMPORTANCES

README = (Path(__file__).parent.parent / 'README.md').read_text()
SECTION = README.split('### New operations and criteria')[1].split('\n## ')[0]
RULE, CHANNELS, CRITERION = re.findall(r'```python\n(.*?)```', SECTION, flags=re.DOTALL)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.ops.mylib.swish2(self.norm(self.first(x))))


@pytest.fixture
def model(monkeypatch) -> nn.Module:
    if 'mylib::swish2' not in RULES:
        exec(RULE, {})
    torch.manual_seed(0)
    return Net().eval()


IMAGE = torch.randn(1, 3, 4, 4)


def test_rule(model, monkeypatch):
    assert [g.size for g in trace_channels(model, lambda m: m(IMAGE)).groups] == [8]
    monkeypatch.delitem(RULES, 'mylib::swish2')
    channels = trace_channels(model, lambda m: m(IMAGE))
    assert not channels.groups
    assert 'mylib::swish2, which has no rule, in the model' in channels.frozen


def test_what_came_of_it(model, capsys):
    exec(CHANNELS, {'model': model, 'image': IMAGE})
    assert capsys.readouterr().out.startswith("[('first', 8)] {")


def test_criterion(model):
    scope: dict = {}
    exec(CRITERION, scope)
    try:
        with torch.no_grad():
            model.norm.weight.copy_(torch.tensor([9.0, 1, 8, 2, 7, 3, 6, 4]))
        structure = prune_model(
            model, inputs=IMAGE, target=dict(params=0.6), importance='normscale', round_to=4
        )
        assert structure['keep']['norm.weight'][0] == [0, 2, 4, 6]
        assert model.norm.weight.tolist() == [9, 8, 7, 6]
    finally:
        IMPORTANCES.module_dict.pop('NormScaleImportance')
