# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""What the hooks need of a Runner's private parts, and of the hooks beside them.

Read it at every release of mmengine, with the files that ``integration/__init__.py`` lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, EMAHook
from mmengine.model import BaseAveragedModel
from mmengine.runner import BaseLoop, Runner
from torch import nn
from torch.optim import Optimizer

from ..integration import rewrap_model, unwrapped
from ..models import complete_forward, raw_forward, synthetic_batch
from ..pruning import ForwardFn, eval_mode, last_cut, preserve_state, tensors_in


def is_resume_asked_for(runner: Runner) -> bool:
    """Return whether the config says ``resume=True``, whether or not there is a checkpoint."""
    return runner._resume


def is_resumed(runner: Runner) -> bool:
    """Return whether a run goes on, by ``resume=True`` or by ``Runner.resume()`` before it trains.

    ``Runner.resume()`` leaves no mark but the iteration that it has read from the checkpoint.
    """
    return runner._resume or runner.iter > 0


def is_training(runner: Runner) -> bool:
    """Return whether a Runner trains or will, and does not only test or validate.

    test.py has the settings of a training in its config, too. What is run is built before the
    checkpoint is loaded.
    """
    # The public train_loop would build it, and load the training set, when it is asked for.
    if isinstance(runner._train_loop, BaseLoop):
        return True
    tests = any(isinstance(loop, BaseLoop) for loop in (runner._val_loop, runner._test_loop))
    return runner._train_loop is not None and not tests


def loaded_file(runner: Runner) -> str:
    """Return the checkpoint that a run starts from, for messages."""
    return runner._load_from or 'what was loaded'


def newest_if_passed_over(runner: Runner) -> str | None:
    """Return the newest checkpoint of a run that was told to go on from one of another folder.

    Returns:
        str | None: What mmengine has noted in the run's folder; None where the run goes on from
        there, or nothing is noted.
    """
    folder, named = Path(runner.work_dir), runner._load_from
    if not named or Path(named).parent.resolve() == folder.resolve():
        return None
    try:
        newest = (folder / 'last_checkpoint').read_text().strip()
    except (OSError, UnicodeDecodeError):  # there is none, or it says nothing
        return None
    # A CheckpointHook with an out_dir writes elsewhere.
    return newest if newest and Path(newest).resolve() != Path(named).resolve() else None


def optimizers_of(runner: Runner) -> list[Optimizer]:
    """Return the optimizer in a list, which is empty where there is none yet, or several.

    While a Runner tests or has not begun to train, ``optim_wrapper`` is None or a dict.
    """
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    return [optimizer] if isinstance(optimizer, Optimizer) else []


def sample_forward(runner: Runner, image_size: tuple[int, int] | None = None) -> ForwardFn:
    """Return a function that runs a model on the first validation (or training) image.

    The model's raw outputs are returned. Where layers serve the loss alone, it is computed for
    the first training image as well. Random numbers are used up.

    Args:
        runner (Runner): The run.
        image_size (tuple[int, int], optional): Height and width that the image has to have;
            noise stands in for one of another size.
    """
    model = unwrapped(runner.model)
    batch = _first_batch(model, runner.val_loop or runner.train_loop)
    if image_size is not None and _image_size(batch) != image_size:
        batch = _noise(model, image_size, _image_size(batch))
    with eval_mode(model):
        return complete_forward(
            model,
            batch,
            # Batch norm in training mode raises an error for a single value a channel.
            lambda: _first_batch(model, runner.train_loop, images=2),
            lambda line: runner.logger.warning(f'AdaSAP: {line}'),
        )


def _image_size(batch: object) -> tuple[int, ...]:
    return tuple(next(tensors_in(batch)).shape[-2:])


def _noise(model: nn.Module, wanted: tuple[int, int], found: tuple[int, ...]) -> dict:
    """Return a preprocessed image of noise.

    Raises:
        ValueError: If the model takes other samples than those of mmdet and mmpretrain.
    """
    try:
        with eval_mode(model):
            return model.data_preprocessor(synthetic_batch(model, wanted), False)
    except ImportError as error:
        text = [f'{" x ".join(map(str, size))} pixels' for size in (wanted, found)]
        raise ValueError(
            f'target.table: it is of images of {text[0]}, and the first one that is validated has '
            f'{text[1]}; make one for that size with adasap latency --image-size'
        ) from error


def running_modules(runner: Runner) -> set[str]:
    """Return the modules that take part in a run of the model on the first validation image.

    Returns:
        set[str]: Their names. A module takes part if it is called, or one inside it is.
    """
    model = unwrapped(runner.model)
    batch = _first_batch(model, runner.val_loop or runner.train_loop)
    ran: set[str] = set()

    def note(name: str) -> None:
        while name and name not in ran:
            ran.add(name)
            name = name.rpartition('.')[0]

    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: note(name))
        for name, module in model.named_modules()
    ]
    try:
        with eval_mode(model), preserve_state(model):
            raw_forward(batch)(model)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _first_batch(model: nn.Module, loop: BaseLoop, images: int = 1) -> dict | tuple | list:
    # Not through the dataloader, whose sampler would move on and change what training sees.
    dataset = loop.dataloader.dataset
    batch = loop.dataloader.collate_fn([dataset[i % len(dataset)] for i in range(images)])
    with eval_mode(model):
        return model.data_preprocessor(batch, False)


def averaged_models(runner: Runner) -> list[nn.Module]:
    """Return the copies of the model that EMA hooks hold."""
    return [unwrapped(averaging.module) for averaging in _averaging(runner)]


def _averaging(runner: Runner) -> list[BaseAveragedModel]:
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    # EMAHook makes its copy in before_run, which may come after ours.
    return [hook.ema_model for hook in hooks if hasattr(hook, 'ema_model')]


def after_load(runner: Runner, structure: Mapping | None) -> None:
    """Let moving averages and the distributed wrapper follow a model of a checkpoint's shape.

    Args:
        runner (Runner): The run; to be called in every process.
        structure (Mapping, optional): The structure of the checkpoint, if it has one.
    """
    _rebind_ema(runner)
    if structure is not None and last_cut(structure) is not None:
        rewrap_model(runner)


def _rebind_ema(runner: Runner) -> None:
    """Let EMA hooks see the tensors that their copies have after a cut.

    With ``update_buffers=True`` mmengine averages into tensors that it took from the copy once,
    in ``BaseAveragedModel.__init__``: those of the dense copy, which nobody reads any more.
    """
    for averaging in _averaging(runner):
        if averaging.update_buffers:
            averaging.avg_parameters = averaging.module.state_dict()


def after_cut(runner: Runner) -> None:
    """Let all that knows the dense model go on with the slim one, after the cut of a training.

    These are moving averages, the distributed wrapper, the best checkpoint and early stopping. To
    be called in every process, when the model, its optimizer and its copies are cut.
    """
    _rebind_ema(runner)
    rewrap_model(runner)
    _reset_best_checkpoint(runner)
    _reset_early_stopping(runner)


def _reset_best_checkpoint(runner: Runner) -> None:
    """Let the best checkpoint be found anew among slim models; the dense one so far goes.

    A dense model mostly scores higher, so that no slim checkpoint would be the best one.
    """
    info = runner.message_hub.runtime_info
    dense = [info[key] for key in info if key.startswith('best_ckpt') and info[key]]
    for key in [key for key in info if key.startswith(('best_score', 'best_ckpt'))]:
        del info[key]
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            runner.logger.info('AdaSAP cut the model: the best checkpoint is chosen anew')
            # With one indicator CheckpointHook has best_ckpt_path, with several the dict.
            if getattr(hook, 'best_ckpt_path', None):
                hook.best_ckpt_path = None
            for indicator in getattr(hook, 'best_ckpt_path_dict', {}):
                hook.best_ckpt_path_dict[indicator] = None
            if is_main_process():
                for path in filter(hook.file_backend.isfile, dense):
                    hook.file_backend.remove(path)


def _reset_early_stopping(runner: Runner) -> None:
    """Let early stopping wait for slim models to get better, which a dense one would outdo."""
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            hook.wait_count = 0
            hook.best_score = -inf if hook.rule == 'greater' else inf


@contextmanager
def frozen_as_at_the_start(model: nn.Module, state: Mapping) -> Iterator[list[str]]:
    """Freeze the parameters that were frozen when the run was started, as long as this is open.

    Which channels there are depends on what is trained when they are looked for. A hook or a
    backbone may have frozen or thawed layers since, and the groups have to be the same ones.

    Args:
        model (nn.Module): The model.
        state (Mapping): What AdaSAPHook has put into the checkpoint; empty in a new run.

    Yields:
        list[str]: Names of the parameters that were frozen then, or are now in a new run.
    """
    parameters = dict(model.named_parameters())
    now = {name: parameter.requires_grad for name, parameter in parameters.items()}
    frozen = state.get('frozen')
    if not isinstance(frozen, list):
        frozen = [name for name, is_trained in now.items() if not is_trained]
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name not in frozen)
        yield frozen
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(now[name])
