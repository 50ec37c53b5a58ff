# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Run a model of mmengine so that every layer is met and every raw output is seen."""

import contextlib
import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from ..integration.compat import is_detector
from ..optim.replay import BufferSnapshot
from ..pruning import trace_channels
from ..pruning.model_state import preserve_modes, preserve_state

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
    with preserve_modes(model):
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
        with preserve_state(model):
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
    unused_parameters = trace_channels(model, forward).unused_parameters
    return any(parameters[name].dim() > 1 for name in unused_parameters)


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


SIZES = (256, 320, 512, 800)
"""Sides of the images in pixels; the first that a detector runs on is used."""
CLASSIFIER_SIZES = (64, 224, 32, 256, 384)
"""The same for all other models, most of which take small images or just those of ImageNet."""


def candidate_sizes(model: nn.Module) -> tuple[int, ...]:
    """Sides of images that a model of mmengine is tried with, in pixels, in this order."""
    return SIZES if is_detector(model) else CLASSIFIER_SIZES


def synthetic_batch(model: nn.Module, size: int, images: int = 1) -> dict:
    """A batch as ``model.test_step`` and ``model.train_step`` take it, without meaning.

    Args:
        model (nn.Module): A model of mmdet (the samples have boxes then, and masks if some
            layer is named after them) or mmpretrain.
        size (int): Side of the images in pixels.
        images (int): Number of images. Defaults to 1.

    Returns:
        dict: ``inputs``, float images of shape ``[3, size, size]`` (one channel if the model
        normalises just one), and ``data_samples``.
    """
    generator = torch.Generator().manual_seed(0)
    mean = getattr(model.data_preprocessor, 'mean', None)
    shape = (1 if isinstance(mean, torch.Tensor) and mean.numel() == 1 else 3, size, size)
    inputs = [128 * torch.rand(shape, generator=generator) for _ in range(images)]
    if is_detector(model):
        masks = any('mask' in name for name, _ in model.named_modules())
        samples = [_detection(size, masks) for _ in range(images)]
        return dict(inputs=inputs, data_samples=samples)
    from mmpretrain.structures import DataSample

    samples = [DataSample().set_gt_label(0) for _ in range(images)]
    return dict(inputs=torch.stack(inputs), data_samples=samples)


def _detection(size: int, with_masks: bool) -> object:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    shape = (size, size)
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=shape,
            ori_shape=shape,
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
        )
    )
    far = size * 0.8
    boxes = torch.tensor([[size * 0.1, size * 0.2, size * 0.4, size * 0.6], [8.0, 8.0, far, far]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 0]))
    if with_masks:
        masks = np.zeros((2, size, size), dtype=np.uint8)
        masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, size, size, dtype=torch.long))
    return sample
