# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What radii do to the loss, said when a run enters a phase, since nobody knows it beforehand."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..sharpness import Perturbation

STEPS = 100
HARDLY, TOO_MUCH = 1.02, 2.0
"""L(w+ε)/L(w) up to which the second pass says as good as nothing new, and from which on it is
about another network."""


class LossRatioWatch:
    """Averages L(w+ε)/L(w) over the first iterations that a run has in a phase.

    Args:
        phase (str): The phase, for the message.
        key (str): What AdaSAPHook calls the perturbation, 'perturbation' or 'finetune'.
        perturbation (Perturbation): The perturbation.
        done (int): Iterations of the training that are over.
        end (int): How many are over when the phase ends. Of more than 100 to come it takes 100.
    """

    def __init__(
        self, phase: str, key: str, perturbation: Perturbation, done: int, end: int
    ) -> None:
        self.phase, self.key = phase, key
        names = ('rho_max', 'rho_min', 'rho')
        self.radii = [f'{key}.{name}' for name in names if hasattr(perturbation, name)]
        self.first = done + 1
        self.steps = min(end - done, STEPS)
        self._seen = 0
        self._sum = self._finite = torch.zeros(())

    def add(self, ratio: Tensor | float) -> tuple[int, str] | None:
        """Take the ratio of a step; after the last of them, a level of logging and what to say.

        Args:
            ratio (Tensor | float): A 0-dim tensor, which is not waited for before the last step.
        """
        if self._seen >= self.steps:
            return None
        ratio = torch.as_tensor(ratio)
        finite = ratio.isfinite()
        self._sum = self._sum.to(ratio.device) + torch.where(finite, ratio, 0)
        self._finite = self._finite.to(ratio.device) + finite
        self._seen += 1
        return self._verdict() if self._seen == self.steps else None

    def _verdict(self) -> tuple[int, str]:
        finite = int(self._finite)
        last = self.first + self.steps - 1
        text = f'AdaSAP: in iterations {self.first} to {last}, of the phase {self.phase!r}, '
        if not finite:
            return logging.WARNING, f'{text}no loss was finite, at w or at w+ε'
        if finite < self.steps:
            text += f'{self.steps - finite} losses were not finite; elsewhere '
        mean = float(self._sum) / finite
        text += f'loss_ratio, L(w+ε)/L(w), was {mean:.3f} on average'
        radii = ' and '.join(self.radii) or f'the radii of {self.key}'
        if mean <= HARDLY:
            return logging.WARNING, (
                f'{text}, so that two passes did hardly more than one: raise {radii} until it is '
                f'about 1.2 to 1.5'
            )
        if mean >= TOO_MUCH:
            return logging.WARNING, (
                f'{text}, which is too far for what is learned at w+ε to help at w: lower '
                f'{radii} until it is about 1.2 to 1.5'
            )
        return logging.INFO, text


def layer_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shape of the weight of every convolution and linear layer by the layer's name."""
    return {
        name: module.weight.shape
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    }


def cut_table(model: nn.Module, dense: Mapping[str, torch.Size], structure: Mapping) -> str:
    """Channels of the convolution and linear layers that shrank, parameters and FLOPs.

    Args:
        model (nn.Module): The slim model.
        dense (Mapping[str, torch.Size]): Its :func:`layer_shapes` before the cut.
        structure (Mapping): Its structure.
    """
    rows, whole = [('layer', 'inputs', 'outputs', 'parameters')], 0
    for name, module in model.named_modules():
        if not isinstance(module, _ConvNd | nn.Linear):
            continue
        before, after = dense[name], module.weight.shape
        if before == after:
            whole += 1
            continue
        inputs, outputs = (0, 1) if getattr(module, 'transposed', False) else (1, 0)
        rows.append(
            (
                name,
                _change(before[inputs], after[inputs]),
                _change(before[outputs], after[outputs]),
                _change(before.numel(), after.numel()),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    totals = [
        f'{resource}: {structure["dense"][resource]:,} -> '
        f'{round(structure["dense"][resource] * left):,} ({left:.4f})'
        for resource, left in structure['reached'].items()
    ]
    return '\n'.join(['AdaSAP cut the model', *lines, f'{whole} more layers as before', *totals])


def _change(before: int, after: int) -> str:
    return f'{before:,}' if before == after else f'{before:,} -> {after:,}'
