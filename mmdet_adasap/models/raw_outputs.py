# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model of mmengine so that every layer is met and every raw output is seen."""

import contextlib
import copy
from collections.abc import Callable, Iterator

from torch import nn

PROPOSAL_SIZES = (16, 48, 96, 160, 288, 512, 1024)
"""Side lengths of the fixed proposals in pixels; every level of a feature pyramid gets some."""


def raw_forward(batch: dict | tuple | list) -> Callable[[nn.Module], object]:
    """A function that runs a model on a preprocessed batch and returns its raw outputs.

    The second stage of a two-stage detector gets fixed proposals: those of its own RPN change
    with the last bit, and random weights may give none. What the RPN itself returns is among
    the outputs.

    Args:
        batch (dict | tuple | list): What the model's data_preprocessor returned.
    """

    def forward(model: nn.Module) -> object:
        inputs = copy.deepcopy(batch)
        with _fixed_proposals(model) as rpn_outputs:
            if isinstance(inputs, dict):
                outputs = model(**inputs, mode='tensor')
            else:
                outputs = model(*inputs, mode='tensor')
        return outputs, rpn_outputs

    return forward


@contextlib.contextmanager
def _fixed_proposals(model: nn.Module) -> Iterator[list]:
    """Replace what the RPN proposes, and collect its raw outputs."""
    rpn_head = getattr(model, 'rpn_head', None)
    outputs = []
    if rpn_head is None or not hasattr(model, 'roi_head'):
        yield outputs
        return

    def predict(features, data_samples, *args, **kwargs) -> list:
        outputs.append(rpn_head(features))
        return [_proposals(features[0]) for _ in data_samples]

    rpn_head.predict = predict
    try:
        yield outputs
    finally:
        del rpn_head.predict


def _proposals(like):
    from mmengine.structures import InstanceData

    sizes = like.new_tensor(PROPOSAL_SIZES)
    corners = sizes.new_tensor([3.0, 5.0]).expand(len(sizes), 2)
    boxes = like.new_empty(len(sizes), 4)
    boxes[:, :2], boxes[:, 2:] = corners, corners + sizes[:, None]
    scores = like.new_ones(len(sizes))
    return InstanceData(bboxes=boxes, scores=scores, labels=scores.long())
