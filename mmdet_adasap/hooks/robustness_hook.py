# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from collections.abc import Sequence

from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ..datasets.corruptions import check_condition
from ..datasets.shared_images import CLEAN, Condition
from ..evaluation.engine import Subject, evaluate_cells
from ..evaluation.scoring import build_scorer
from ..evaluation.shared_set import build_shared_set
from ..evaluation.summary import benchmark_corruptions, summarize
from ..unwrapping import unwrapped


@HOOKS.register_module()
class RobustnessHook(Hook):
    """Logs mPC on some images of the validation set while a model trains.

    After a validation it tests the model, or its moving average if validation does, on the same
    few images clean and corrupted, with the config's val_evaluator. ``robustness/clean``,
    ``robustness/mPC`` and ``robustness/rPC`` are logged, and are among the metrics of the
    validation, so that ``CheckpointHook(save_best='robustness/mPC')`` works. The training itself
    goes as it would without the hook.

    Args:
        interval (int): Validations behind a multiple of so many epochs, or iterations in an
            iteration loop, are followed by one. Defaults to 1.
        corruptions (Sequence[str], optional): mPC is over these. Defaults to the benchmark's.
        severities (Sequence[int]): And these. Defaults to (3,).
        subset (int, optional): How many images; None for all. Defaults to 100.
        seed (int): Of the corruptions. Defaults to 0.
        num_workers (int): Processes that load, started each time. Defaults to 0.

    Raises:
        TypeError, ValueError: If an argument is of another type or value, or a run does not
            validate.
    """

    # Behind what has put the moving average in for validation, before what takes it out (49).
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        interval: int = 1,
        corruptions: Sequence[str] | None = None,
        severities: Sequence[int] = (3,),
        subset: int | None = 100,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        for key, value in (('interval', interval), ('subset', subset)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f'RobustnessHook.{key}={value!r} must be an int of at least 1')
        names = benchmark_corruptions() if corruptions is None else corruptions
        for name in names:
            for severity in severities:
                check_condition(name, severity)
        self.interval = interval
        self.conditions = [CLEAN, *(Condition(c, s) for s in severities for c in names)]
        if len(self.conditions) == 1:
            raise ValueError('RobustnessHook: corruptions and severities must name one at least')
        self.subset = subset
        self.seed = seed
        self.num_workers = num_workers
        self._parts = None

    def before_train(self, runner: Runner) -> None:
        """Refuse a run that does not validate."""
        if runner.val_loop is None:
            raise ValueError(
                'RobustnessHook runs after validations, and this run has none: set '
                'val_dataloader, val_evaluator and val_cfg, or leave the hook out'
            )

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Test, if it is time."""
        training = isinstance(runner._train_loop, BaseLoop)
        by_epoch = training and runner.cfg.get('train_cfg', {}).get('by_epoch', True)
        done = runner.epoch if by_epoch else runner.iter
        if not training or done % self.interval:
            return
        for name, value in self._test(runner).items():
            runner.message_hub.update_scalar(f'val/{name}', value)
            if metrics is not None:
                metrics[name] = value

    def _test(self, runner: Runner) -> dict[str, float]:
        shared, scorer, size = self._build(runner)
        subject = Subject('model', unwrapped(runner.model), scorer)
        cells = list(
            evaluate_cells(
                *([subject], shared.images, self.conditions, shared.collate),
                batch_size=size,
                workers=self.num_workers,
            )
        )
        box = [None if cells[0] is None else self._figures(runner, cells)]
        broadcast_object_list(box)
        return box[0]

    def _figures(self, runner: Runner, cells: list) -> dict[str, float]:
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
        # A model that detects nothing yet has no rPC.
        mpc = summarize(table, clean or 1.0)['mPC']
        figures = {'robustness/clean': clean, 'robustness/mPC': mpc}
        return {**figures, 'robustness/rPC': mpc / clean} if clean else figures

    def _build(self, runner: Runner) -> tuple:
        if self._parts is None:
            dataloader = runner.cfg.val_dataloader
            shared = build_shared_set(
                {'RobustnessHook': dataloader}, self.subset, self.seed, 'val_dataloader'
            )
            scorer = build_scorer(runner.cfg.val_evaluator, shared.metainfo)
            self._parts = shared, scorer, dataloader.get('batch_size', 1)
        return self._parts
