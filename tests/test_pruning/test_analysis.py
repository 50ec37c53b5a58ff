# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which layers are left whole when a trial cut goes wrong."""

import pytest
import torch
from torch import Tensor, nn

from _utils.nets import Net, assert_cuts, randomise, runs
from mmdet_adasap.pruning.analysis import find_channels

IMAGE = 2, 3, 6, 6


class MixedDict(nn.ModuleDict):
    """timm's MixedConv2d: a dict of convolutions with a forward of its own."""

    def __init__(self) -> None:
        super().__init__({str(i): nn.Conv2d(4, 4, 3, padding=1) for i in range(3)})
        self.splits = [4, 4, 4]

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self.values(), x.split(self.splits, 1), strict=True)
        return torch.cat([layer(part) for layer, part in parts], 1)


class MixedList(nn.ModuleList):
    def __init__(self) -> None:
        super().__init__([nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12)])

    def forward(self, x: Tensor) -> Tensor:
        return self[1](self[0](x)).view(len(x), 12, 6, 6)


class MixedSequential(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(12, 12, 1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(len(x), 12, 6, 6)


class ReshapingReLU(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(len(x), 12, 6, 6)


@pytest.mark.parametrize(
    ('kind', 'whole'),
    [
        (MixedDict, 'first'),
        (MixedList, 'mix.0.0'),
        (MixedSequential, 'mix.0.0'),
        (ReshapingReLU, 'first'),
    ],
)
def test_a_container_with_a_forward_of_its_own(kind, whole):
    """The layer whose width it takes for granted keeps it, and all others are cut."""
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.head(n.after(n.mix(n.first(x)))),
        first=nn.Conv2d(3, 12, 1),
        mix=nn.Sequential(kind()),
        after=nn.Conv2d(12, 7, 1),
        head=nn.Conv2d(7, 2, 1),
    )
    model, x = randomise(model), torch.randn(IMAGE)
    lines = []
    channels = find_channels(model, runs(x), lines.append)
    assert list(channels.excluded) == [whole]
    assert len(lines) == 1
    assert lines[0].startswith(f'{whole} left whole: the cut model ')
    assert 'after' in {group.name for group in channels.groups}
    assert_cuts(model, x, channels)


class Reading(nn.Module):
    """Divides by what it reads from its layers: no operation tells where the number came from."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) / self.layers[0].weight.shape[0]


def test_a_width_that_python_reads_is_kept_and_no_other():
    torch.manual_seed(0)
    model = Net(
        lambda n, x: n.mix(n.before(n.first(x))),
        first=nn.Conv2d(3, 7, 1),
        before=nn.Conv2d(7, 8, 1),
        mix=Reading(),
    )
    model, x = randomise(model), torch.randn(IMAGE)
    lines = []
    channels = find_channels(model, runs(x), lines.append)
    assert list(channels.excluded) == ['mix.layers.0']
    assert [group.name for group in channels.groups] == ['first', 'before']
    assert [line.split(' left whole')[0] for line in lines] == ['mix.layers.0']
    assert_cuts(model, x, channels)
