# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Export the networks of a detector or classifier to ONNX, and verify them with onnxruntime."""

import inspect
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import MissingPackageError, OnnxMismatchError, one_line
from ..integration import is_classifier
from ..pruning import difference, eval_mode, output_tensors

OPSET = 17
"""Fixed, since the default of torch.onnx.export changes with PyTorch."""
TOLERANCE = 1e-4
"""Of the largest output, in float32: the kernels of onnxruntime add in another order, and deep
models amplify the rounding. An own choice, ten times that of a trial cut in PyTorch alone."""
SIZE_STEP = 32
"""Pixels by which the second image of a check is higher, and twice that by which it is wider: the
stride of most backbones, of which heights and widths must be multiples in some models."""
ROIS = 3
"""Pooled regions in the traced input; their number is free in the file."""


def check_onnx(what: str = '--onnx', runtime: str = 'onnxruntime') -> None:
    """Refuse what needs an ONNX file, if it could not be written, or not be run.

    Args:
        what (str): What needs it, for the error. Defaults to '--onnx'.
        runtime (str): What is to run it; '' if nothing. Defaults to 'onnxruntime'.

    Raises:
        MissingPackageError: Naming the command that installs what is missing.
    """
    needed = [name for name in ('onnx', runtime) if name]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f'{what} needs {" and ".join(missing)}; install with: pip install {" ".join(needed)}'
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


def export_onnx(
    model: nn.Module, inputs: Tensor, folder: Path, dynamic_size: bool = False
) -> dict[str, dict]:
    """Write the networks of a model, and compare each with it.

    Args:
        model (nn.Module): The detector or classifier, in eval mode on a CPU.
        inputs (Tensor): Preprocessed images, ``[batch, 3, height, width]``; height and width
            are those of the file, the batch is free.
        folder (Path): Gets ``model.onnx``, and ``roi_head.onnx`` of a two-stage detector.
        dynamic_size (bool): Leave height and width of ``model.onnx`` free, too, and compare it at
            a second size. Defaults to False.

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
        pooled = pooled_features(model) if two_stages else None
        if two_stages:
            holds += (
                'the second stage, which is not one head behind one pooling, is left out'
                if pooled is None
                else 'RoIAlign and decoding are left to the runtime, see roi_head.onnx'
            )
        found['model.onnx'] = _export(
            RawHeads(model),
            inputs,
            folder / 'model.onnx',
            holds,
            _larger(model, inputs) if dynamic_size else inputs,
        )
        if pooled is not None:
            found['roi_head.onnx'] = _export(
                BoxHead(model.roi_head),
                pooled,
                folder / 'roi_head.onnx',
                'second stage: pooled features to class scores and box deltas',
                pooled,
            )
    return found


def _larger(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the images in another size, in which the file is to run, too.

    Raises:
        OnnxMismatchError: If the model does not take them.
    """
    # Models with a larger stride, as EfficientDet's 128, say so to the preprocessor.
    step = max(SIZE_STEP, getattr(model.data_preprocessor, 'pad_size_divisor', 1))
    height, width = inputs.shape[2] + step, inputs.shape[3] + 2 * step
    larger = nn.functional.interpolate(inputs, size=(height, width), mode='bilinear')
    try:
        RawHeads(model)(larger)
    except Exception as error:  # a model may refuse a size in any way
        raise OnnxMismatchError(
            f'--dynamic-size: the model takes images of {_size(inputs)} pixels and none of '
            f'{_size(larger)} ({one_line(error)}); export without it'
        ) from error
    return larger


def _size(images: Tensor) -> str:
    """Return height and width of images, for messages."""
    return f'{images.shape[2]}x{images.shape[3]}'


def pooled_features(model: nn.Module, regions: int = ROIS) -> Tensor | None:
    """Return random features for the second stage; None for a cascade, or without a box head."""
    head = model.roi_head
    extractor = getattr(head, 'bbox_roi_extractor', None)
    if not getattr(head, 'with_bbox', False) or not hasattr(extractor, 'roi_layers'):
        return None
    size = extractor.roi_layers[0].output_size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(regions, extractor.out_channels, *size, generator=generator)


def _export(network: nn.Module, inputs: Tensor, file: Path, holds: str, other: Tensor) -> dict:
    """Write one ONNX file, compare it with the network, and describe it for the report.

    Args:
        network (nn.Module): What is written.
        inputs (Tensor): What it is traced with.
        file (Path): The file.
        holds (str): What the network is, for the report.
        other (Tensor): What it is compared with; sizes in which it differs from ``inputs`` are
            free in the file.
    """
    network.eval()
    # Another batch size than the traced one, so that a fixed one is noticed.
    other = torch.cat([other, other.flip(-1)])
    traced, expected = list(network(inputs)), list(network(other))
    axes = {'input': _free_axes(inputs, other, {0: 'batch', 2: 'height', 3: 'width'})}
    for i, (small, large) in enumerate(zip(traced, expected, strict=True)):
        name = f'output_{i}'
        names = {axis: f'{name}_size_{axis}' for axis in range(1, small.dim())}
        axes[name] = _free_axes(small, large, {0: 'batch', **names})
    try:
        write_onnx(network, inputs, file, axes)
    except Exception as error:
        raise OnnxMismatchError(
            f'--onnx: {file.name} cannot be written ({one_line(error)}); export without it'
        ) from error
    return {
        'holds': holds,
        'inputs': _shape(inputs, axes['input']),
        'outputs': [_shape(tensor, axes[f'output_{i}']) for i, tensor in enumerate(expected)],
        'bytes': file.stat().st_size,
        'difference': _compare(file, [(inputs, traced), (other, expected)]),
    }


def write_onnx(
    network: nn.Module, inputs: Tensor, file: Path, axes: Mapping[str, Mapping[int, str]]
) -> None:
    """Write a network as one ONNX file.

    Args:
        network (nn.Module): The network, in eval mode.
        inputs (Tensor): What it is traced with.
        file (Path): The file.
        axes (Mapping[str, Mapping[int, str]]): 'input' and the name of each output, in order, to
            the axes that are free in the file, with their names.
    """
    # Before PyTorch 2.5 there was no other exporter, nor this option.
    has_choice = 'dynamo' in inspect.signature(torch.onnx.export).parameters
    traced = {'dynamo': False} if has_choice else {}
    with warnings.catch_warnings():
        # A tracer warns of every size that it takes as a constant; heights and widths are,
        # unless they are free, and then the comparison shows whether that did harm.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            network,
            (inputs,),
            str(file),
            **traced,
            opset_version=OPSET,
            input_names=['input'],
            output_names=list(axes)[1:],
            dynamic_axes=dict(axes),
        )


def _free_axes(small: Tensor, large: Tensor, names: dict[int, str]) -> dict[int, str]:
    """Return the axes that differ between two tensors, with their names in the file."""
    return {axis: name for axis, name in names.items() if small.shape[axis] != large.shape[axis]}


def _shape(tensor: Tensor, free: dict[int, str]) -> list[int | str]:
    """Return a shape, with names for the axes that are free."""
    return [free.get(axis, size) for axis, size in enumerate(tensor.shape)]


def _compare(file: Path, cases: list[tuple[Tensor, list[Tensor]]]) -> float:
    """Return how far an ONNX file is from the network, at most, relative to the largest output.

    Args:
        file (Path): The file.
        cases (list[tuple[Tensor, list[Tensor]]]): Inputs, and the outputs of the network.

    Raises:
        OnnxMismatchError: If that is above :data:`TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    worst = 0.0
    for inputs, expected in cases:
        has_other_size = inputs.shape[2:] != cases[0][0].shape[2:]
        option = '--dynamic-size' if has_other_size else '--onnx'
        place = f' for {_size(inputs)} pixels' if has_other_size else ''
        try:
            arrays = session.run(None, {'input': inputs.numpy()})
            apart = difference([torch.from_numpy(array) for array in arrays], expected)
        except Exception as error:  # a size that the trace took as a constant, as a rule
            raise OnnxMismatchError(
                f'{option}: {file.name} does not run{place} ({one_line(error)}); export without it'
            ) from error
        if apart > TOLERANCE:
            raise OnnxMismatchError(
                f'{option}: {file.name} gives other outputs than the model{place}, {apart:.1e} of '
                f'the largest apart; export without it'
            )
        worst = max(worst, apart)
    return worst
