# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Export the networks of a detector or classifier to ONNX, and verify them with onnxruntime."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import OnnxMismatchError, one_line
from ..integration import is_classifier
from ..pruning import difference, eval_mode, output_tensors

OPSET = 17
"""Fixed, since the default of torch.onnx.export changes with PyTorch."""
TOLERANCE = 1e-4
"""Of the largest output, in float32: the kernels of onnxruntime add in another order, and deep
models amplify the rounding. An own choice, ten times that of a trial cut in PyTorch alone."""
ROIS = 3
"""Pooled regions in the traced input; their number is free in the file."""


def check_onnx() -> None:
    """Raise ImportError if the result could not be verified.

    Raises:
        ImportError: Naming the command that installs what is missing.
    """
    missing = [name for name in ('onnx', 'onnxruntime') if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'--onnx needs {" and ".join(missing)}; install with: pip install onnx onnxruntime'
        )


class RawHeads(nn.Module):
    """A model up to its raw outputs, before boxes are decoded: returns a tuple of tensors.

    For a two-stage detector these are the features of the neck and the outputs of the RPN.

    Args:
        model (nn.Module): The detector or classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the raw outputs for images of shape ``[N, 3, H, W]``."""
        if hasattr(self.model, 'roi_head'):
            features = self.model.extract_feat(inputs)
            found = (features, self.model.rpn_head(features))
        else:
            found = self.model(inputs, mode='tensor')
        return tuple(output_tensors(found))


class BoxHead(nn.Module):
    """The second stage of a two-stage detector, on pooled features.

    Args:
        roi_head (nn.Module): One with a single ``bbox_head``.
    """

    def __init__(self, roi_head: nn.Module) -> None:
        super().__init__()
        self.shared_head = roi_head.shared_head if roi_head.with_shared_head else nn.Identity()
        self.bbox_head = roi_head.bbox_head

    def forward(self, rois: Tensor) -> tuple[Tensor, ...]:
        """Return class scores and box deltas for features of shape ``[rois, C, h, w]``."""
        return tuple(output_tensors(self.bbox_head(self.shared_head(rois))))


def export_onnx(model: nn.Module, inputs: Tensor, folder: Path) -> dict[str, dict]:
    """Write the networks of a model, and compare each with it.

    Args:
        model (nn.Module): The detector or classifier, in eval mode on a CPU.
        inputs (Tensor): Preprocessed images, ``[batch, 3, height, width]``; height and width
            are those of the file, the batch is free.
        folder (Path): Gets ``model.onnx``, and ``roi_head.onnx`` of a two-stage detector.

    Returns:
        dict[str, dict]: By file: 'holds', what it is; 'inputs' and 'outputs', their shapes;
        'bytes'; and the relative 'difference' from the model.

    Raises:
        OnnxMismatchError: If that is above :data:`TOLERANCE`, or an operation has no ONNX
            counterpart.
    """
    with eval_mode(model):
        two_stages = hasattr(model, 'roi_head')
        holds = 'raw outputs of the heads, before decoding and NMS'
        if is_classifier(model):
            holds = 'scores of the classes, before the softmax'
        if two_stages:
            holds = 'features of the neck, then raw outputs of the RPN; '
        found = {}
        pooled = _pooled(model) if two_stages else None
        if two_stages:
            holds += (
                'the second stage, which is not one head behind one pooling, is left out'
                if pooled is None
                else 'RoIAlign and decoding are left to the runtime, see roi_head.onnx'
            )
        found['model.onnx'] = _export(RawHeads(model), inputs, folder / 'model.onnx', holds)
        if pooled is not None:
            found['roi_head.onnx'] = _export(
                BoxHead(model.roi_head),
                pooled,
                folder / 'roi_head.onnx',
                'second stage: pooled features to class scores and box deltas',
            )
    return found


def _pooled(model: nn.Module) -> Tensor | None:
    """Return random features for the second stage; None for a cascade, or without a box head."""
    head = model.roi_head
    extractor = getattr(head, 'bbox_roi_extractor', None)
    if not getattr(head, 'with_bbox', False) or not hasattr(extractor, 'roi_layers'):
        return None
    size = extractor.roi_layers[0].output_size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROIS, extractor.out_channels, *size, generator=generator)


def _export(network: nn.Module, inputs: Tensor, file: Path, holds: str) -> dict:
    """Write one ONNX file, compare it with the network, and describe it for the report."""
    import onnxruntime

    network.eval()
    outputs = [f'output_{i}' for i in range(len(network(inputs)))]
    names = ['input', *outputs]
    try:
        with warnings.catch_warnings():
            # A tracer warns of every size that it takes as a constant; heights and widths are.
            warnings.simplefilter('ignore')
            torch.onnx.export(
                network,
                (inputs,),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=names[:1],
                output_names=outputs,
                dynamic_axes={name: {0: 'batch'} for name in names},
            )
    except Exception as error:
        raise OnnxMismatchError(
            f'--onnx: {file.name} cannot be written ({one_line(error)}); export without it'
        ) from error
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    # Another batch size than the traced one, so that a fixed one is noticed.
    other = torch.cat([inputs, inputs.flip(-1)])
    expected = list(network(other))
    given = [torch.from_numpy(array) for array in session.run(None, {'input': other.numpy()})]
    apart = difference(given, expected)
    if apart > TOLERANCE:
        raise OnnxMismatchError(
            f'--onnx: {file.name} gives other outputs than the model, {apart:.1e} of the largest '
            f'apart; export without it'
        )
    return {
        'holds': holds,
        'inputs': ['batch', *inputs.shape[1:]],
        'outputs': [['batch', *tensor.shape[1:]] for tensor in expected],
        'bytes': file.stat().st_size,
        'difference': apart,
    }
