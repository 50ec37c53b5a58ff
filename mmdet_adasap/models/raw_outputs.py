# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model of mmengine so that every layer is met and every raw output is seen."""

import contextlib
import copy
from collections.abc import Callable, Iterator

from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from ..optim.replay import BufferSnapshot
from ..pruning import trace_channels
from ..pruning.running import keeping_modes, keeping_state

PROPOSAL_SIZES = (16, 48, 96, 160, 288, 512, 1024)
"""Side lengths of the fixed proposals in pixels; every level of a feature pyramid gets some."""


def raw_forward(
    batch: dict | tuple | list, labelled: dict | tuple | list | None = None
) -> Callable[[nn.Module], object]:
    """A function that runs a model on a preprocessed batch and returns its raw outputs.

    The second stage of a two-stage detector gets fixed proposals: those of its own RPN change
    with the last bit, and random weights may give none. What the RPN itself returns is among
    the outputs.

    Args:
        batch (dict | tuple | list): What the model's data_preprocessor returned.
        labelled (dict | tuple | list, optional): The same with annotations, for a model some of
            whose layers serve the loss alone: the loss is computed, too, and not returned.
    """

    def forward(model: nn.Module) -> object:
        with _fixed_proposals(model) as rpn_outputs:
            outputs = _call(model, batch, 'tensor')
        if labelled is not None:
            _run_loss(model, labelled)
        return outputs, rpn_outputs

    return forward


def _run_loss(model: nn.Module, labelled: dict | tuple | list) -> None:
    """Compute the loss in train mode; buffers and modes come back to what they were."""
    buffers = BufferSnapshot(model)
    with keeping_modes(model):
        try:
            model.train()
            _call(model, labelled, 'loss')
        finally:
            with _disable_current_modes():  # a trace is not to see this
                buffers.restore()


def complete_forward(
    model: nn.Module,
    batch: dict | tuple | list,
    labelled: Callable[[], dict | tuple | list],
    report: Callable[[str], None],
) -> Callable[[nn.Module], object]:
    """:func:`raw_forward`, with the loss where layers serve it alone.

    Args:
        model (nn.Module): The model, in eval mode and without gradients.
        batch (dict | tuple | list): What its data_preprocessor returned.
        labelled (Callable): Gives two images with annotations, preprocessed likewise (two,
            since batch norm in train mode cannot do with one value).
        report (Callable): Called with a line if the loss cannot be computed.
    """
    forward = raw_forward(batch)
    if not _leaves_layers_out(model, forward):
        return forward
    try:
        with_loss = raw_forward(batch, labelled())
        with keeping_state(model):
            with_loss(model)
    except Exception as error:
        report(
            f'the loss of two images cannot be computed ({type(error).__name__}: {error}), so it '
            f'is not known which channels the loss alone reads; training may stop after the cut'
        )
        return forward
    return with_loss


def _leaves_layers_out(model: nn.Module, forward: Callable[[nn.Module], object]) -> bool:
    """Whether some weights take no part in a run of the model."""
    parameters = dict(model.named_parameters())
    unreached = trace_channels(model, forward).unreached
    return any(parameters[name].dim() > 1 for name in unreached)


def _call(model: nn.Module, batch: dict | tuple | list, mode: str) -> object:
    inputs = copy.deepcopy(batch)
    if isinstance(inputs, dict):
        return model(**inputs, mode=mode)
    return model(*inputs, mode=mode)


@contextlib.contextmanager
def _fixed_proposals(model: nn.Module) -> Iterator[list]:
    """Replace what the RPN proposes, and collect its raw outputs."""
    rpn_head = getattr(model, 'rpn_head', None)
    outputs = []
    # Heads without a forward of their own propose in another way, from learnt boxes or in stages.
    if not hasattr(model, 'roi_head') or not _has_forward(rpn_head):
        yield outputs
        return

    def predict(features, data_samples, *args, **kwargs) -> list:
        outputs.append(rpn_head(features))
        return [_proposals(features[0]) for _ in data_samples]

    own = vars(rpn_head).get('predict')
    rpn_head.predict = predict
    try:
        yield outputs
    finally:
        del rpn_head.predict
        if own is not None:
            rpn_head.predict = own


def _has_forward(module: nn.Module | None) -> bool:
    return module is not None and type(module).forward is not nn.Module.forward


def _proposals(like: Tensor) -> InstanceData:
    """Squares of all sizes, the same for every image."""
    sizes = like.new_tensor(PROPOSAL_SIZES)
    corners = sizes.new_tensor([3.0, 5.0]).expand(len(sizes), 2)
    boxes = like.new_empty(len(sizes), 4)
    boxes[:, :2], boxes[:, 2:] = corners, corners + sizes[:, None]
    scores = like.new_ones(len(sizes))
    return InstanceData(bboxes=boxes, scores=scores, labels=scores.long())
