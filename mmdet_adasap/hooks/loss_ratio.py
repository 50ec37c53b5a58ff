# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What a radius does to the loss, said once a phase, since nobody knows it beforehand."""

import logging

from torch import Tensor

STEPS = 100
HARDLY, TOO_MUCH = 1.02, 2.0
"""L(w+ε)/L(w) up to which the second pass says as good as nothing new, and from which on it is
about another network."""


class LossRatioWatch:
    """Averages L(w+ε)/L(w) over steps of a phase, from where a run enters it.

    Args:
        phase (str): The phase, for the message.
        key (str): What AdaSAPHook calls the perturbation, 'perturbation' or 'finetune'.
        steps (int): Steps of the phase. Of more than 100 it takes the first 100.
    """

    def __init__(self, phase: str, key: str, steps: int) -> None:
        self.phase, self.key = phase, key
        self.steps = min(steps, STEPS)
        self._sum: Tensor | float = 0.0
        self._seen = 0

    def add(self, ratio: Tensor | float) -> tuple[int, str] | None:
        """Take the ratio of a step; after the last of them, a level of logging and what to say.

        Args:
            ratio (Tensor | float): A 0-dim tensor, which is not waited for before the last step.
        """
        if self._seen >= self.steps:
            return None
        self._sum = self._sum + ratio
        self._seen += 1
        return self._verdict(float(self._sum) / self.steps) if self._seen == self.steps else None

    def _verdict(self, mean: float) -> tuple[int, str]:
        radii = 'rho_max and rho_min' if self.key == 'perturbation' else 'rho'
        text = (
            f'AdaSAP: over {self.steps} steps of the phase {self.phase!r}, loss_ratio, '
            f'L(w+ε)/L(w), is {mean:.3f} on average'
        )
        if mean <= HARDLY:
            return logging.WARNING, (
                f'{text}, so that two passes do hardly more than one: raise the radii of '
                f'{self.key} ({radii}) until it is about 1.2 to 1.5'
            )
        if not mean < TOO_MUCH:  # also nan
            return logging.WARNING, (
                f'{text}, which is too far for what is learned at w+ε to help at w: lower the '
                f'radii of {self.key} ({radii}) until it is about 1.2 to 1.5'
            )
        return logging.INFO, text
