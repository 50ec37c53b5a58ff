# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The threads that two networks are compared with."""

import pytest
import torch
from torch import nn

from mmdet_adasap.export import time_share


class Counting(nn.Module):
    """Notes the threads that PyTorch has while it runs."""

    seen: list[int] = []

    def forward(self, x):
        self.seen.append(torch.get_num_threads())
        return x * 2


@pytest.mark.parametrize('fails', [False, True])
def test_pytorch_has_the_threads_of_the_table(fails, monkeypatch):
    """A training has others, and has them again afterwards, also where the timing fails."""

    def fail(self, x):
        raise RuntimeError('no memory')

    seen = []
    monkeypatch.setattr(Counting, 'seen', seen)
    if fails:
        monkeypatch.setattr(Counting, 'forward', fail)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        arguments = (Counting(), Counting(), (1, 3, 4, 4), 'torch')
        if fails:
            with pytest.raises(RuntimeError, match='no memory'):
                time_share(*arguments, pairs=1)
        else:
            assert time_share(*arguments, pairs=1) > 0
            assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
