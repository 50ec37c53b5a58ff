# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A hook that tests a model under corruptions while it trains."""

import math
from collections.abc import Sequence
from numbers import Real

from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from ..integration import broadcast_from_rank_0, raise_on_all_ranks, unwrapped
from ..registry import check_integer, checks_arguments
from ..robustness.corruptions import BENCHMARK, check_condition, check_frost_photos
from ..robustness.datasets import CLEAN, Condition
from ..robustness.engine import ConditionResult, EvaluatedModel, evaluate_conditions
from ..robustness.metrics import (
    MetricAdapter,
    Names,
    build_adapter,
    select_part,
    summarize,
)
from ..robustness.test_set import TestSet, build_test_set
from .unread_options import check_unread_options

FIGURES = ('robustness/clean', 'robustness/mPC', 'robustness/rPC')
NAMES = Names('val_evaluator', 'metric of RobustnessHook', 'scale of RobustnessHook')
"""Names of evaluator, metric and scale in messages about them."""


@HOOKS.register_module()
class RobustnessHook(Hook):
    """Log mPC on some images of the validation set while a model trains.

    After a validation it tests the model, or its moving average if validation does, on the same
    few images clean and corrupted, with the config's val_evaluator. It logs ``robustness/clean``,
    ``robustness/mPC`` and ``robustness/rPC`` (none while nothing is detected). They are also among
    the metrics of the validation, so that ``CheckpointHook(save_best='robustness/mPC',
    rule='greater')`` works. After a validation without a test they are None, and no checkpoint is
    chosen. The hook does not change the training.

    Args:
        interval (int): A test follows validations after a multiple of so many epochs, or of so
            many iterations in an iteration loop. Defaults to 1.
        corruptions (Sequence[str], optional): Those that mPC is over. Defaults to the benchmark's.
        severities (Sequence[int]): Those that mPC is over. Defaults to (3,).
        subset (int, optional): How many images; None for all, and no more than there are.
            Defaults to 100.
        seed (int): Seed of the corruptions. Defaults to 0.
        num_workers (int): Processes that load, started each time. Defaults to 0.
        metric (str, optional): Name of P, as 'coco/bbox_mAP_50'. Defaults to what the task's
            benchmark takes.
        scale (float, optional): Factor for a P that is used as its metric gives it, 0.01 for
            percents; see :func:`~mmdet_adasap.robustness.metrics.build_adapter`.

    Raises:
        SettingError: If an argument is unexpected.
        TypeError, ValueError: If one is of another type or value.
    """

    # Above EMAHook's (50, or 49 in mmdet's configs): after a validation it must come first, as
    # EMAHook then swaps the weights back for those that are trained.
    priority = 'ABOVE_NORMAL'

    @checks_arguments
    def __init__(
        self,
        interval: int = 1,
        corruptions: Sequence[str] | None = None,
        severities: Sequence[int] = (3,),
        subset: int | None = 100,
        seed: int = 0,
        num_workers: int = 0,
        metric: str | None = None,
        scale: float | None = None,
    ) -> None:
        check_integer('RobustnessHook.interval', interval, 1)
        check_integer('RobustnessHook.subset', subset, 1, or_none=True)
        check_integer('RobustnessHook.seed', seed, 0)
        check_integer('RobustnessHook.num_workers', num_workers, 0)
        names = BENCHMARK if corruptions is None else corruptions
        for key, value, example in (
            ('corruptions', names, "['fog', 'snow']"),
            ('severities', severities, '[3]'),
        ):
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise TypeError(f'RobustnessHook.{key}={value!r} must be a list, as {example}')
        for name in names:
            for severity in severities:
                _check_condition(name, severity)
        if metric is not None and (not isinstance(metric, str) or not metric):
            raise ValueError(
                f'RobustnessHook.metric={metric!r} must be a str, as coco/bbox_mAP_50, or None'
            )
        number = isinstance(scale, Real) and not isinstance(scale, bool)
        if scale is not None and not (number and 0 < scale < math.inf):
            raise ValueError(
                f'RobustnessHook.scale={scale!r} must be a number above 0, as 0.01 of percents'
            )
        self.interval = interval
        # Each once: as in tools/robustness.py one that is named twice changes nothing.
        corrupted = dict.fromkeys(Condition(c, s) for s in severities for c in names)
        self.conditions = [CLEAN, *corrupted]
        if len(self.conditions) == 1:
            raise ValueError('RobustnessHook: corruptions and severities must name one at least')
        if not set(names) & set(BENCHMARK):
            raise ValueError(
                f'RobustnessHook.corruptions={list(names)}: mPC is over corruptions of the '
                f'benchmark; add one of {", ".join(BENCHMARK)}'
            )
        self.subset = subset
        self.seed = seed
        self.num_workers = num_workers
        self.metric = metric
        self.scale = scale
        # Test set, adapter and batch size, built before training.
        self._built = None
        # The figures that CheckpointHook looks for after every validation.
        self._save_best_keys: list[str] = []

    def before_run(self, runner: Runner) -> None:
        """Refuse settings of the hook that an option put where nobody reads them.

        Raises:
            ValueError: Naming the option.
        """
        check_unread_options(runner.cfg, type(self).__name__, 'robustness', frozenset())

    def before_train(self, runner: Runner) -> None:
        """Build test set and adapter, so that a run that cannot be tested ends before it trains.

        Raises:
            ValueError: If the run does not validate, or its val_dataloader, its val_evaluator or
                a save_best do not go with the hook.
            FileNotFoundError: If a file of the images, or the photographs of frost are missing.
        """
        if runner.val_loop is None:
            raise ValueError(
                'RobustnessHook runs after validations, and this run has none: set '
                'val_dataloader, val_evaluator and val_cfg, or leave the hook out'
            )
        hooks = [type(hook).__name__ for hook in runner.hooks]
        if 'EMAHook' in hooks[: runner.hooks.index(self)]:
            raise ValueError(
                'EMAHook comes before RobustnessHook, which would test the weights without the '
                'average: put RobustnessHook into default_hooks, or give EMAHook priority=49'
            )
        self._save_best_keys = _save_best_keys(runner)
        images = len(runner.val_loop.dataloader.dataset)
        if self.subset is not None and self.subset > images:
            runner.logger.warning(
                f'RobustnessHook: subset={self.subset}, and there are {images} validation images: '
                f'it takes all of them'
            )
        with raise_on_all_ranks():
            self._built = self._build(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Test, if the interval is over, and log the figures."""
        # Without a built train loop this is runner.val(), which has no epoch.
        if not isinstance(runner._train_loop, BaseLoop):
            return
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        done = runner.iter if by_iteration else runner.epoch
        figures = {} if done % self.interval else self._test(runner)
        for name, value in figures.items():
            runner.message_hub.update_scalar(f'val/{name}', value)
        if metrics is not None:
            # CheckpointHook leaves out what is None, and fails on what is missing.
            metrics.update({**dict.fromkeys(self._save_best_keys), **figures})

    def _test(self, runner: Runner) -> dict[str, float]:
        test_set, adapter, batch_size = self._built
        fp16 = bool(getattr(runner.val_loop, 'fp16', False))
        found = evaluate_conditions(
            [EvaluatedModel('model', unwrapped(runner.model), adapter, fp16=fp16)],
            test_set,
            self.conditions,
            batch_size=batch_size,
            workers=self.num_workers,
        )
        cells: list[ConditionResult | None] = []
        figures = None
        for _ in self.conditions:
            failure = None
            try:
                cells.append(next(found))
            except Exception as error:
                failure = error
            # Rank 0 alone scores. If it fails there, the others would wait for it in the next
            # condition for ever.
            with raise_on_all_ranks():
                if failure is not None:
                    raise failure
        with raise_on_all_ranks():
            if cells[0] is not None:
                figures = self._figures(runner, cells)
        return broadcast_from_rank_0(figures)

    def _figures(self, runner: Runner, cells: list[ConditionResult]) -> dict[str, float]:
        if cells[0].unreadable:
            image, error = cells[0].unreadable[0]
            runner.logger.warning(
                f'RobustnessHook leaves out {len(cells[0].unreadable)} images that cannot be '
                f'read: {image} ({error})'
            )
        clean, table = cells[0].scores['model'].value, {}
        for cell in cells[1:]:
            row = table.setdefault(cell.condition.corruption, {})
            row[cell.condition.severity] = cell.scores['model'].value
        summary = summarize(table, clean, allow_zero_clean=True)
        if not clean:
            runner.logger.warning(
                'RobustnessHook: P is 0 on clean images, so there is no robustness/rPC'
            )
        figures = {'robustness/clean': clean, 'robustness/mPC': summary['mPC']}
        # A model that detects nothing yet has no rPC.
        return {**figures, 'robustness/rPC': summary['rPC']} if clean else figures

    def _build(self, runner: Runner) -> tuple[TestSet, MetricAdapter, int]:
        dataloader, evaluator = (
            runner.cfg.get(key) for key in ('val_dataloader', 'val_evaluator')
        )
        if not dataloader or not evaluator:
            raise ValueError(
                'RobustnessHook builds val_dataloader and val_evaluator from the cfg of the '
                'Runner, which lacks them: make the Runner with Runner.from_cfg'
            )
        if any(condition.corruption == 'frost' for condition in self.conditions):
            check_frost_photos()
        dataloader, evaluator, metric = select_part(dataloader, evaluator, self.metric, NAMES)
        test_set = build_test_set(
            {'RobustnessHook': dataloader},
            self.subset,
            self.seed,
            'val_dataloader',
            allow_fewer=True,
        )
        if test_set.remark:
            runner.logger.warning(f'RobustnessHook: {test_set.remark}')
        adapter = build_adapter(evaluator, test_set.metainfo, metric, self.scale, NAMES)
        adapter.check_images(len(test_set.images))
        adapter.check_annotations(test_set.infos)
        return test_set, adapter, dataloader.get('batch_size', 1)


def _check_condition(name: object, severity: object) -> None:
    """Raise an error that begins with the argument, if there is no such corruption or severity."""
    try:
        check_condition(name, severity)
    except (TypeError, ValueError) as error:
        key = 'severities' if str(error).startswith('severity') else 'corruptions'
        raise type(error)(f'RobustnessHook.{key}: {error}') from error


def _save_best_keys(runner: Runner) -> list[str]:
    """Return the figures of RobustnessHook that best checkpoints are chosen by.

    Raises:
        ValueError: If a save_best names a figure that the hook does not have.
    """
    keys = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            keys += [key for key in hook.save_best or () if key.startswith('robustness/')]
    for key in keys:
        if key not in FIGURES:
            raise ValueError(
                f'save_best={key!r} of the checkpoint hook: RobustnessHook gives '
                f'{", ".join(FIGURES)}'
            )
    return keys
