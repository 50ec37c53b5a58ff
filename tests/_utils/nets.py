# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Tiny networks and helpers that the tests of pruning share."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mmdet_adasap.pruning import PrunableChannels, indices_from_masks, trace_channels, verify_cut
from mmdet_adasap.pruning.analysis import attribute_counts


class Net(nn.Module):
    """Layers by name and a function of them and the input."""

    def __init__(self, run: Callable[['Net', Tensor], object], **layers) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give all that a checkpoint holds values that show a wrong cut."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() > 1 and 'weight' in name:
                fan = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / fan**0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model


def runs(x: Tensor) -> Callable[[nn.Module], object]:
    return lambda model: model(x)


def trace(model: nn.Module, x: Tensor) -> PrunableChannels:
    return trace_channels(model, runs(x))


def random_choice(channels: PrunableChannels, fraction: float, seed: int = 0) -> list[np.ndarray]:
    """About that fraction of every group, and at least one channel of each."""
    rng = np.random.default_rng(seed)
    chosen = []
    for group in channels.groups:
        kept = rng.random(group.size) < fraction
        kept[rng.integers(group.size)] = True
        chosen.append(kept)
    return chosen


def assert_cuts(model: nn.Module, x: Tensor, channels: PrunableChannels | None = None) -> None:
    """Slim equals masked for random choices of 30, 50 and 70 % and for one channel a group."""
    channels = channels or trace(model, x)
    for seed, fraction in enumerate((0.3, 0.5, 0.7, 0.0)):
        kept = random_choice(channels, fraction, seed)
        keep = indices_from_masks(model, channels.groups, kept)
        attrs = attribute_counts(model, channels, keep, kept)
        assert verify_cut(model, keep, runs(x), attrs) <= 1e-5


def chain() -> Net:
    """Three convolutions with BN, a residual, a flatten and two linear layers."""

    def run(net: Net, x: Tensor) -> Tensor:
        x = torch.relu(net.bn1(net.conv1(x)))
        x = torch.relu(x + net.bn2(net.conv2(x)))
        x = nn.functional.adaptive_avg_pool2d(torch.relu(net.conv3(x)), 2).flatten(1)
        return net.head(torch.relu(net.fc(x)))

    return randomise(
        Net(
            run,
            conv1=nn.Conv2d(3, 8, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(8),
            conv2=nn.Conv2d(8, 8, 3, padding=1),
            bn2=nn.BatchNorm2d(8),
            conv3=nn.Conv2d(8, 12, 3, stride=2),
            fc=nn.Linear(48, 10),
            head=nn.Linear(10, 4),
        )
    )
