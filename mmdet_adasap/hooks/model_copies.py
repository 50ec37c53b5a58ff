# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find a copy of the network inside the model: the teacher of a student, a momentum encoder.

Such a copy is not trained but follows the network, tensor by tensor. A cut of one of them alone
would end the training at the next update, and a target would count both.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator

from mmengine.model import BaseAveragedModel
from torch import nn

COPY_WORDS = re.compile(r'(?<![a-z])(teacher|ema|momentum|target)(?![a-z])', re.IGNORECASE)
"""What a copy is called in mmdet (teacher), mmpretrain (momentum_encoder, target_net) and timm
(ema)."""


def check_no_copy(model: nn.Module, running_modules: Callable[[], set[str]]) -> None:
    """Raise ValueError if a model holds a copy of its network that follows the training of it.

    The moving averages of EMAHook are outside of the model and are no such copies.

    Args:
        model (nn.Module): The model, without a distributed wrapper.
        running_modules (Callable): Runs the model as for validation, and returns the names of the
            modules that took part. Called only where two networks of the same layers are found.

    Raises:
        ValueError: Naming both networks, and what to do instead.
    """
    for name, module in model.named_modules():
        if isinstance(module, BaseAveragedModel):
            raise ValueError(_message(name, 'other layers', 'backbone'))
    pairs = list(_look_alikes(model))
    # A larger teacher that stays as it is may have the neck of its student; that is no copy.
    if _numel_of_outer(model, {copy for _, copy in pairs}) < 0.5 * _untrained_numel(model):
        return
    ran: set[str] | None = None
    for network, copy in pairs:
        if not COPY_WORDS.search(copy):
            ran = running_modules() if ran is None else ran
            # Blocks of one network all run; of a network and its copy only one does.
            if (network in ran) == (copy in ran):
                continue
        raise ValueError(_message(copy, network, network))


def _message(copy: str, network: str, prefix: str) -> str:
    return (
        f'model: {copy} is a copy of {network} that is not trained itself, as a teacher or '
        f'moving average, and AdaSAPHook cannot cut both alike; train without it, and then prune '
        f"the network by itself, in its own config with init_cfg=dict(type='Pretrained', "
        f'prefix={prefix!r}, checkpoint=...)'
    )


def _untrained_numel(model: nn.Module) -> int:
    """Return how many numbers are in parameters that are not trained."""
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def _numel_of_outer(model: nn.Module, names: set[str]) -> int:
    """Return how many parameters some modules have, each counted once where they are nested."""
    outer = [n for n in names if not any(n.startswith(f'{other}.') for other in names)]
    return sum(p.numel() for name in outer for p in model.get_submodule(name).parameters())


def _look_alikes(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield networks side by side that have the same layers, and of which one is not trained.

    Yields:
        tuple[str, str]: Name of the one that is trained, and of the other; outer ones come first.
    """
    alike = defaultdict(list)
    for name, module in model.named_modules():
        parameters = list(module.named_parameters())
        # A single layer is no network, and many are alike.
        if name and sum(p.dim() > 1 for _, p in parameters) > 1:
            alike[tuple((key, p.shape) for key, p in parameters)].append((name, module))
    for modules in alike.values():
        trained = [name for name, m in modules if any(p.requires_grad for p in m.parameters())]
        for name, _ in modules:
            # Nothing but its name tells a copy that is left trainable and gets no gradient.
            if name in trained and 'teacher' not in name.rpartition('.')[2]:
                continue
            for other in trained:
                nested = f'{name}.'.startswith(f'{other}.') or f'{other}.'.startswith(f'{name}.')
                if not nested:
                    yield other, name
