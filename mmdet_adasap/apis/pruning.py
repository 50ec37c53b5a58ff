# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Prune a model, or cut one to the shape of another, with one call."""

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import NoGradientsError, StructureError, listed, one_line
from ..models import candidate_sizes, complete_forward, raw_forward, synthetic_batch
from ..pruning import (
    MAX_PRUNING_RATIO,
    META_KEY,
    RESOURCES,
    ForwardFn,
    Importance,
    Pruner,
    check_dense,
    check_fits,
    check_model,
    check_structure,
    check_target,
    cut,
    default_step,
    eval_mode,
    is_cut,
    output_tensors,
    preserve_state,
    tag_model,
    unused_weights,
    with_integer_axes,
)
from ..pruning import mask as mask_channels
from ..registry import IMPORTANCES, build, names

T = TypeVar('T')


def prune_model(
    model: nn.Module,
    data: Any = None,
    target: Mapping[str, float] | None = None,
    importance: str | Mapping | Importance = 'magnitude',
    round_to: int | None = None,
    inputs: Tensor | tuple | None = None,
    forward: ForwardFn | None = None,
    max_pruning_ratio: float = MAX_PRUNING_RATIO,
    solver: str = 'ranked',
    objective: str = 'sum',
) -> dict:
    """Cut the least important channels of a model, in place and at once.

    Without training in between, little accuracy is left: this is for looking at a slim model,
    and for pipelines of one's own. A model that was pruned before can be pruned again.

    Args:
        model (nn.Module): A detector of mmdet, a classifier of mmpretrain, or any torch module.
        data (Any, optional): A batch as ``model.test_step`` takes it. Defaults to None: an image
            of noise, of the size that a table in the target was made for.
        target (Mapping): What is to remain of the dense model, ``dict(params=f)``,
            ``dict(flops=f)`` or ``dict(latency=f, table='table.json')``; of several all hold.
            Defaults to ``dict(params=0.5)``.
        importance (str | Mapping | Importance): The criterion, by a short name ('magnitude'),
            as in a config, or itself.
        round_to (int, optional): Channels that a layer keeps are a multiple of it. Defaults to
            None: 8, or the step of the device where the target has a table.
        inputs (Tensor | tuple, optional): For a torch module that mmengine knows nothing of:
            what its ``forward`` takes.
        forward (Callable, optional): Instead of both: takes the model, runs it on a real input and
            returns its raw outputs, those before a top-k or NMS. What it returns is never cut.
        max_pruning_ratio (float): The largest share of its channels that a layer may lose, in
            (0, 1]. Defaults to 0.9.
        solver (str): How channels are chosen within the target: 'ranked' by their importance
            alone, 'joint' by what it adds up to for what they cost. Defaults to 'ranked'.
        objective (str): What 'joint' makes the most of: 'sum', the importance that is left in
            all, or 'log', the logarithms of the share that each layer keeps of its own, which
            makes deep cuts dear. Defaults to 'sum'.

    Returns:
        dict: The structure, plain data, see ``pruning/structure.py``; for
        :func:`apply_structure`, or ``checkpoint['meta']['mmdet_adasap']``.

    Raises:
        ValueError: If an argument is not valid, or the target cannot be reached.
        EquivalenceError: If the cut stays wrong whatever is left whole.

    Examples:
        >>> structure = prune_model(model, target=dict(params=0.4))
        >>> apply_structure(fresh_dense_model, structure)
    """
    _check_not_swapped(data, target)
    target = dict(params=0.5) if target is None else target
    target = check_target(target)
    if forward is None:
        size = target.image_size if data is None and inputs is None else None
        forward = build_forward(model, data, inputs, size)
    else:
        _check_forward(model, forward, data, inputs)
    criterion = _build_importance(importance)
    if round_to is None:
        round_to = default_step(target.table)
    pruner = Pruner(
        model, forward, target, criterion, round_to, max_pruning_ratio, solver, objective
    )
    _warn_of_what_stays(pruner)
    # Masking zeroes weights; if the cut then fails, the model is to be as it was.
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        _with_scores(importance, lambda: pruner.prune_to(pruner.targets))
        return pruner.cut()
    except Exception:
        pruner.masks.release()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name])
        raise


def _check_not_swapped(data: object, target: object) -> None:
    """Raise ValueError if a target stands where data belong, which come first."""
    if isinstance(data, Mapping) and len(data) == 1 and next(iter(data)) in RESOURCES:
        inputs = '' if target is None else ', inputs=...'
        raise ValueError(
            f'data={data!r} is a target, and the second argument of prune_model is a batch; write '
            f'prune_model(model, target={data!r}{inputs})'
        )


def _check_forward(model: nn.Module, forward: object, data: object, inputs: object) -> None:
    """Raise ValueError if a user's forward cannot be used."""
    if data is not None or inputs is not None:
        raise ValueError('forward is given with data or inputs; give one of the three')
    if not callable(forward):
        raise ValueError(
            f'forward is a {type(forward).__name__}, and must be a function of the model, for '
            f'example forward=lambda model: model(images)'
        )
    check_model(model)
    try:
        with eval_mode(model), preserve_state(model):
            outputs = forward(model)
    except Exception as error:  # whatever the model raises
        raise ValueError(
            f'forward: {type(model).__name__} does not run with it ({one_line(error)}); it must '
            f'take the model, run it, and return its raw outputs'
        ) from error
    output_tensors(outputs)


def _warn_of_what_stays(pruner: Pruner) -> None:
    """Warn of layers left whole after a trial or not met at all, and if nothing is to go."""
    for name, reason in pruner.channels.excluded.items():
        warnings.warn(f'{name or "the model"} is left whole: {reason}', stacklevel=3)
    unused = unused_weights(pruner.model, pruner.channels)
    if unused:
        warnings.warn(
            f'{listed(unused, 3)} took no part in the run, in eval mode or in train mode, and are '
            f'left whole; if you use them, give a forward that runs them as well: they may read '
            f'channels that are cut',
            stacklevel=3,
        )
    for line in pruner.limits.notices():
        warnings.warn(line, stacklevel=3)
    if pruner.is_within_target:
        left = ' and '.join(f'{r} {pruner.remaining(r):.4f}' for r in pruner.targets)
        warnings.warn(
            f'{pruner.target} removes nothing: {left} of the dense model are there; set a lower '
            f'one',
            stacklevel=3,
        )


def predict_slim_channels(
    model: nn.Module,
    forward: ForwardFn,
    target: Mapping[str, float],
    importance: str | Mapping | Importance = 'magnitude',
    round_to: int | None = None,
    max_pruning_ratio: float = MAX_PRUNING_RATIO,
    solver: str = 'ranked',
    objective: str = 'sum',
) -> tuple[Pruner, list[int]]:
    """Predict what :func:`prune_model` would leave; the model stays as it is.

    Args:
        model (nn.Module): The model.
        forward (Callable): Runs it and returns its raw outputs, see :func:`build_forward`.
        target (Mapping): As for :func:`prune_model`.
        importance (str | Mapping | Importance): As for :func:`prune_model`.
        round_to (int, optional): As for :func:`prune_model`.
        max_pruning_ratio (float): As for :func:`prune_model`. Defaults to 0.9.
        solver (str): As for :func:`prune_model`. Defaults to 'ranked'.
        objective (str): As for :func:`prune_model`. Defaults to 'sum'.

    Returns:
        tuple[Pruner, list[int]]: The pruner, with the groups and the dense model's size, and how
        many channels each group would keep.

    Raises:
        ValueError: If an argument is not valid, or the target cannot be reached.
        EquivalenceError: If the cut stays wrong whatever is left whole.
    """
    criterion = _build_importance(importance)
    target = check_target(target)
    if round_to is None:
        round_to = default_step(target.table)
    pruner = Pruner(
        model, forward, target, criterion, round_to, max_pruning_ratio, solver, objective
    )
    kept = _with_scores(importance, lambda: pruner.select(pruner.targets))
    return pruner, [int(k.sum()) for k in kept]


def _with_scores(importance: object, score: Callable[[], T]) -> T:
    """Call a function that scores channels; say so if the criterion needs training."""
    try:
        return score()
    except NoGradientsError as error:
        raise ValueError(
            f'importance={importance!r} needs training steps, of which there are none here; use '
            f"'magnitude', or train with AdaSAPHook"
        ) from error


def apply_structure(model: nn.Module, structure: Mapping, mask: bool = False) -> None:
    """Cut a newly built dense model to the shape that another one was pruned to, in place.

    Args:
        model (nn.Module): The dense model.
        structure (Mapping): What :func:`prune_model` returned, or a checkpoint's
            ``['meta']['mmdet_adasap']``; it may have been through JSON.
        mask (bool): Zero the parameters of the removed channels instead and keep the dense
            shape: the reference that the slim model is compared with. Defaults to False.

    Raises:
        StructureError: If it is malformed or does not fit; nothing is changed then.
    """
    structure = with_integer_axes(structure)
    check_structure(structure)
    check_dense(model, structure)
    check_fits(model, structure['keep'], structure['attrs'])
    if mask:
        mask_channels(model, structure['keep'])
        return
    if not is_cut(structure):
        raise StructureError(
            f'{META_KEY}.phase is {structure["phase"]!r}: the model was not cut yet, what is to '
            f'go is still there as zeros; use mask=True'
        )
    cut(model, structure['keep'], structure['attrs'])
    tag_model(model, structure)


def build_forward(
    model: nn.Module,
    data: Any = None,
    inputs: Tensor | tuple | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> ForwardFn:
    """Return a function that runs a model for a trace, see :func:`prune_model`.

    Args:
        model (nn.Module): The model.
        data (Any, optional): A batch as ``model.test_step`` takes it.
        inputs (Tensor | tuple, optional): What ``forward`` of any other torch module takes.
        image_size (int | tuple[int, int], optional): Without both: side of a square image of
            noise in pixels, or height and width. Defaults to None: :func:`find_image_size`.

    Returns:
        Callable: Takes the model, and returns its raw outputs.

    Raises:
        ValueError: If an input is missing, or the model does not run with it.
    """
    check_model(model)
    if inputs is not None:
        if data is not None:
            raise ValueError('data and inputs are both given; give one of them')
        return _forward_of_inputs(model, inputs if isinstance(inputs, tuple) else (inputs,))
    if not hasattr(model, 'data_preprocessor'):
        given = ' instead of data' if data is not None else ''
        raise ValueError(
            f'inputs is needed for {type(model).__name__}{given}, which is not a model of '
            f'mmengine: give what its forward takes by name, for example '
            f'prune_model(model, inputs=torch.rand(1, 3, 224, 224))'
        )
    with eval_mode(model):
        if data is not None:
            batch = _preprocess(model, data)
            return complete_forward(model, batch, lambda: batch, _warn)
    return _synthetic_forward(model, image_size or find_image_size(model))


def find_image_size(model: nn.Module) -> int:
    """Return the side in pixels of a small square image that a model of mmengine runs on.

    Args:
        model (nn.Module): A detector of mmdet or a classifier of mmpretrain.

    Returns:
        int: The first of :func:`~mmdet_adasap.models.candidate_sizes` that it runs on.

    Raises:
        ValueError: If it runs on none of them.
    """
    sizes = candidate_sizes(model)
    with eval_mode(model), preserve_state(model):
        for size in sizes:
            try:
                raw_forward(model.data_preprocessor(synthetic_batch(model, size), False))(model)
                return size
            except Exception as error:  # too small or no multiple of a stride: any error may come
                last = error
    raise ValueError(
        f'{type(model).__name__} runs on no square image of {sizes} pixels '
        f'({type(last).__name__}: {last}); give data, a batch as test_step takes it'
    ) from last


def _forward_of_inputs(model: nn.Module, arguments: tuple) -> ForwardFn:
    """Return a function that runs any torch module on given arguments, after trying it."""
    for argument in arguments:
        if isinstance(argument, Tensor) and not (argument.numel() and argument.isfinite().all()):
            raise ValueError(
                'inputs are empty, or hold an inf or a NaN; give a batch of real ones'
            )

    def forward(model: nn.Module) -> object:
        return model(*map(_copy_argument, arguments))

    try:
        with eval_mode(model), preserve_state(model):
            forward(model)
    except Exception as error:
        raise ValueError(
            f'inputs: {type(model).__name__} does not run with them, and they must be what its '
            f'forward takes ({one_line(error)})'
        ) from error
    return forward


def _preprocess(model: nn.Module, data: Any) -> object:
    """Return a batch of the user as the network takes it."""
    try:
        return model.data_preprocessor(data, False)
    except Exception as error:
        raise ValueError(
            f'data is not a batch as {type(model).__name__}.test_step takes it, '
            f'dict(inputs=[image, ...], data_samples=[...]), or does not fit it '
            f'({type(error).__name__}: {error})'
        ) from error


def _copy_argument(argument: object) -> object:
    """Copy an argument, since models may write into what they are given."""
    if isinstance(argument, Tensor):
        return argument.detach().clone()
    return copy.deepcopy(argument)


def _synthetic_forward(model: nn.Module, size: int | tuple[int, int]) -> ForwardFn:
    """Return a function that runs a model on noise."""

    def prepared(images: int) -> object:
        return model.data_preprocessor(synthetic_batch(model, size, images), False)

    with eval_mode(model):
        return complete_forward(model, prepared(1), lambda: prepared(2), _warn)


def _warn(line: str) -> None:
    """Warn of a line of the caller of the public function."""
    warnings.warn(line, stacklevel=3)


def _build_importance(importance: str | Mapping | Importance) -> Importance:
    """Build a criterion from its short name, its config, or itself."""
    if isinstance(importance, str):
        importance = importance.lower().removesuffix('importance')
        # MagnitudeImportance is also 'magnitude'.
        short = {name.removesuffix('Importance').lower(): name for name in names(IMPORTANCES)}
        if importance not in short:
            # Not those that 'needs training steps' would refuse next.
            kinds = IMPORTANCES.module_dict
            usable = [key for key in sorted(short) if not kinds[short[key]].needs_gradients]
            raise ValueError(f'importance={importance!r} is unknown; use one of {usable}')
        importance = dict(type=short[importance])
    criterion = build(IMPORTANCES, importance, 'importance')
    if criterion is None:
        raise ValueError(f'importance=None; name one of {names(IMPORTANCES)}')
    return criterion
