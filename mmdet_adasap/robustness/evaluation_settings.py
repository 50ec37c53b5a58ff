# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The settings of an evaluation: which conditions, images and figures, and how they are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .corruptions import BENCHMARK, SEVERITIES, check_condition, check_mode
from .datasets import CLEAN, Condition


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of :func:`~mmdet_adasap.robustness.evaluate.evaluate_robustness`.

    Args:
        corruptions (Sequence[str], optional): Names of corruptions. Defaults to the benchmark's.
        severities (Sequence[int]): Defaults to 1 to 5.
        subset (int, optional): Number of images, always the same ones. Defaults to all.
        seed (int): Seed of corruptions and bootstrap. Defaults to 0.
        mode (str): Mode of the corruptions: 'fast', or 'exact' for the random numbers of the
            published code. Defaults to 'fast'.
        resamples (int): Resamples of the bootstrap over images; 0 for none. Defaults to 1000.
        batch_size (int, optional): Defaults to the smallest of the configs' test_dataloaders.
        workers (int): Processes that load and corrupt. Defaults to 0.
        device (str): Where the models run. Defaults to 'cpu'.
        reference (str, optional): Model that mCE and differences refer to. Defaults to the first,
            and for mCE on ImageNet's classes to AlexNet's published errors.
        metric (str, optional): Name of P among the metrics, where it is not the task's usual one.
        scale (float, optional): Factor that turns that figure into a fraction.
        partial (bool): Whether to give means while cells are missing. Defaults to False.
        shifted_sets (Mapping[str, dict], optional): Other test sets of the same classes, by names:
            ``{'imagenet-v2': dict(type='ImageNetV2', data_root=...)}``. Each is the config of a
            dataset without pipeline; it gets that of the test_dataloader.
        published (Mapping, optional): A set to read corrupted images from instead of computing
            them: ``dict(type='ImageNetC', data_root=...)`` or ``CIFAR10C``.
        cfg_options (dict, optional): Settings to override in all configs.

    Raises:
        TypeError: If a corruption or severity is of another type.
        ValueError: If there is no such corruption, severity or mode, or none of the former two.
    """

    corruptions: Sequence[str] | None = None
    severities: Sequence[int] = SEVERITIES
    subset: int | None = None
    seed: int = 0
    mode: str = 'fast'
    # Of the standard error of a bootstrap, 1000 resamples leave 2 % of noise: 1 / sqrt(2 * 1000).
    resamples: int = 1000
    batch_size: int | None = None
    workers: int = 0
    device: str = 'cpu'
    reference: str | None = None
    metric: str | None = None
    scale: float | None = None
    partial: bool = False
    shifted_sets: Mapping[str, dict] | None = None
    published: Mapping | None = None
    cfg_options: dict | None = None

    def __post_init__(self) -> None:
        names, severities = self._names, self._severities
        for name in names:
            for severity in severities:
                check_condition(name, severity)
        if not names or not severities:
            raise ValueError('corruptions and severities: name at least one of each')
        check_mode(self.mode)

    @property
    def conditions(self) -> list[Condition]:
        """Clean images, then all corruptions at one severity after the other.

        In this order the first conditions cost as much as the mean one, so that a progress bar
        soon shows the true time.
        """
        return [
            CLEAN,
            *(Condition(name, severity) for severity in self._severities for name in self._names),
        ]

    @property
    def needs_frost_photos(self) -> bool:
        """Whether frost is computed, which needs photographs of another package."""
        return not self.published and 'frost' in self._names

    @property
    def _names(self) -> list[str]:
        names = BENCHMARK if self.corruptions is None else self.corruptions
        # Each once, in the order given.
        return list(dict.fromkeys(names))

    @property
    def _severities(self) -> list[int]:
        return sorted(set(self.severities))
