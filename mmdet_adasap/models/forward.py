# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model of mmengine through all its layers, and return its raw outputs.

A trace sees the layers that run. Layers that serve the loss alone, as auxiliary heads, run with it
only; and what a second stage does depends on the proposals that it gets.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator

from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from ..optim import BufferSnapshot
from ..pruning import (
    not_counted,
    preserve_modes,
    preserve_state,
    repeated,
    tensors_in,
    trace_channels,
    unused_weights,
)

PROPOSAL_SIZES = (16, 48, 96, 160, 288, 512, 1024)
"""Side lengths of the fixed proposals in pixels. With the finest scale of 56 pixels that mmdet's
RoI extractors use, every level of a feature pyramid gets some."""


def raw_forward(
    batch: dict | tuple | list, labelled: dict | tuple | list | None = None
) -> Callable[[nn.Module], object]:
    """Return a function that runs a model on a preprocessed batch and returns its raw outputs.

    The second stage of a two-stage detector gets fixed proposals: those of its own RPN change
    with the last bit, and random weights may give none. What the RPN itself returns is among
    the outputs.

    Args:
        batch (dict | tuple | list): What the model's data_preprocessor returned.
        labelled (dict | tuple | list, optional): The same with annotations, for a model some of
            whose layers serve the loss alone: the loss is computed, too, and not returned.

    Returns:
        Callable: Takes a model, and returns its outputs and those of its RPN.
    """

    def forward(model: nn.Module) -> object:
        with _fixed_proposals(model) as rpn_outputs, _counted_as_later(model, batch):
            outputs = _call(model, batch, 'tensor')
        if labelled is not None:
            _run_loss(model, labelled)
        return outputs, rpn_outputs

    return forward


def _run_loss(model: nn.Module, labelled: dict | tuple | list) -> None:
    """Compute the loss in train mode; buffers and modes come back to what they were."""
    buffers = BufferSnapshot(model)
    with preserve_modes(model), not_counted():
        try:
            model.train()
            _call(model, labelled, 'loss')
        finally:
            # A running trace would take the restored buffers for results of the model.
            with _disable_current_modes():
                buffers.restore()


def complete_forward(
    model: nn.Module,
    batch: dict | tuple | list,
    labelled: Callable[[], dict | tuple | list],
    report: Callable[[str], None],
) -> Callable[[nn.Module], object]:
    """Return :func:`raw_forward`, with the loss if some layers serve that alone.

    Args:
        model (nn.Module): The model, in eval mode and without gradients.
        batch (dict | tuple | list): What its data_preprocessor returned.
        labelled (Callable): Gives two images with annotations, preprocessed likewise (two,
            since batch norm in train mode cannot do with one value).
        report (Callable): Called with a line if the loss cannot be computed.

    Returns:
        Callable: Takes a model, and returns its raw outputs.
    """
    forward = raw_forward(batch)
    if not _has_unused_layers(model, forward):
        return forward
    try:
        with_loss = raw_forward(batch, labelled())
        with preserve_state(model):
            with_loss(model)
    except Exception as error:
        report(
            f'the loss of two images cannot be computed ({type(error).__name__}: {error}), so it '
            f'is not known which channels the loss alone reads; training may stop after the cut'
        )
        return forward
    return with_loss


def _has_unused_layers(model: nn.Module, forward: Callable[[nn.Module], object]) -> bool:
    """Return whether some weights take no part in a run of the model."""
    return bool(unused_weights(model, trace_channels(model, forward)))


def _call(model: nn.Module, batch: dict | tuple | list, mode: str) -> object:
    """Run a model on a copy of a batch, since some models write into their samples."""
    inputs = copy.deepcopy(batch)
    if isinstance(inputs, dict):
        return model(**inputs, mode=mode)
    return model(*inputs, mode=mode)


@contextlib.contextmanager
def _fixed_proposals(model: nn.Module) -> Iterator[list]:
    """Replace what the RPN proposes, and collect its raw outputs."""
    rpn_head = getattr(model, 'rpn_head', None)
    outputs = []
    # Heads without a forward of their own propose in another way, from learnt boxes (Sparse R-CNN)
    # or in stages (Cascade RPN).
    if not hasattr(model, 'roi_head') or not _has_forward(rpn_head):
        yield outputs
        return

    def predict(features, data_samples, *args, **kwargs) -> list:
        outputs.append(rpn_head(features))
        return [_proposals(features[0]) for _ in data_samples]

    own = vars(rpn_head).get('predict')  # an attribute set on the instance, if there is one
    rpn_head.predict = predict
    try:
        yield outputs
    finally:
        del rpn_head.predict
        if own is not None:
            rpn_head.predict = own


@contextlib.contextmanager
def _counted_as_later(model: nn.Module, batch: dict | tuple | list) -> Iterator[None]:
    """Let the second stage count with as many regions as the model's test_cfg has."""
    heads, test_cfg = getattr(model, 'roi_head', None), getattr(model, 'test_cfg', None)
    with contextlib.ExitStack() as stack:
        if heads is not None and test_cfg and _has_forward(getattr(model, 'rpn_head', None)):
            images = len(next(tensors_in(batch)))
            proposals = test_cfg.get('rpn', {}).get('max_per_img')
            detections = test_cfg.get('rcnn', {}).get('max_per_img')
            for name, part in heads.named_children():
                # Masks and key points are predicted of what the boxes have found.
                later = proposals if name in ('bbox_head', 'shared_head') else detections
                for module in part if isinstance(part, nn.ModuleList) else [part]:
                    if later and later > 0:
                        traced = images * len(PROPOSAL_SIZES)
                        stack.enter_context(repeated(module, traced, images * later))
        yield


def _has_forward(module: nn.Module | None) -> bool:
    """Return whether a module defines ``forward``."""
    return module is not None and type(module).forward is not nn.Module.forward


def _proposals(like: Tensor) -> InstanceData:
    """Return squares of all sizes, the same for every image."""
    sizes = like.new_tensor(PROPOSAL_SIZES)
    # Off the corner and off the diagonal, so that x and y are not interchangeable.
    corners = sizes.new_tensor([3.0, 5.0]).expand(len(sizes), 2)
    boxes = like.new_empty(len(sizes), 4)
    boxes[:, :2], boxes[:, 2:] = corners, corners + sizes[:, None]
    scores = like.new_ones(len(sizes))
    return InstanceData(bboxes=boxes, scores=scores, labels=scores.long())
