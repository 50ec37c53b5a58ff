# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Verify a cut: the slim model must give what the masked one gives.

A masked channel is 0 in the dense model, so removing it may change nothing but rounding. A
difference means that the trace has tied, or left untied, the wrong channels.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import EquivalenceError
from .masks import mask
from .model_state import ForwardFn, copy_model, eval_mode, output_tensors, tensors_in
from .slicing import channel_counts, cut
from .structure import Keep

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest output, in float32. About 100 times its
rounding error of 1.2e-7: sums over fewer channels are added in another order."""
INNER_TOLERANCE = 1e-4
"""The same for what single operations return, relative to its own norm, and for the scores that a
selection is made from. Wider than TOLERANCE, since one tensor in the middle may consist of small
differences of large numbers."""

MAX_HELD_ENTRIES = 2**24
"""Numbers that decisions were made from and that one run holds, a limit of our own: 64 MiB of
float32. Later decisions are not compared then."""


def raw_outputs(model: nn.Module, forward: ForwardFn) -> list[Tensor]:
    """Return every tensor that a model returns, in eval mode and without gradients.

    Args:
        model (nn.Module): The model; left as it is.
        forward (Callable): Runs a model on a real input and returns its raw outputs.

    Returns:
        list[Tensor]: Detached copies.

    Raises:
        ValueError: If ``forward`` returns no tensor.
    """
    with eval_mode(model), _full_precision():
        return [tensor.detach().clone() for tensor in output_tensors(forward(model))]


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Keep a GPU from rounding the factors of products to TF32, whose 10 bits hide an error."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def difference(slim: list[Tensor], masked: list[Tensor]) -> float:
    """Return the largest absolute difference, relative to the largest masked output.

    Args:
        slim (list[Tensor]): Outputs of one model.
        masked (list[Tensor]): Outputs of the other, the reference.

    Returns:
        float: The difference; ``inf`` where shapes differ or just one has a NaN or infinity.
    """
    if [t.shape for t in slim] != [t.shape for t in masked]:
        return float('inf')
    largest = absolute = 0.0
    for a, b in zip(slim, masked, strict=True):
        a, b = a.double(), b.double()
        off = (a - b)[a != b].abs()  # without the infinities that both share
        if not off.isfinite().all():
            return float('inf')
        absolute = max(absolute, off.max().item()) if off.numel() else absolute
        finite = b[b.isfinite()].abs()
        largest = max(largest, finite.max().item()) if finite.numel() else largest
    return absolute / largest if largest else absolute


def verify_cut(
    model: nn.Module,
    keep: Keep,
    forward: ForwardFn,
    attrs: Mapping[str, Mapping[str, int]] | None = None,
) -> float:
    """Cut a copy of a model and compare it with a masked copy; the model stays as it is.

    Args:
        model (nn.Module): The dense model, masked or not.
        keep (dict): Tensor name to axis to kept indices.
        forward (Callable): Runs a model on a real input and returns its raw outputs.
        attrs (dict, optional): Module name to attribute to channel count. Defaults to what
            :func:`~mmdet_adasap.pruning.slicing.channel_counts` finds.

    Returns:
        float: The relative difference found.

    Raises:
        EquivalenceError: If it is above :data:`TOLERANCE`, naming the first module that differs.
    """
    attrs = channel_counts(model, keep) if attrs is None else attrs
    # A copy each: some models keep what they compute in their first run (grids, anchors), and a
    # kept tensor of the dense shape must not reach the slim model.
    masked, slim = copy_model(model), copy_model(model)
    mask(masked, keep)
    cut(slim, keep, attrs)
    found, where = _compare_runs(masked, slim, forward)
    if where is not None:
        # Deep models of random weights may amplify rounding beyond the tolerance. In float64 that
        # vanishes, and a wrong tie does not.
        found, where = _compare_in_double(masked, slim, forward) or (found, where)
    if where is not None:
        raise EquivalenceError(
            f'the cut model differs from the masked one by {found:.1e} of what '
            f'{where or "the model itself"} returns; its channels are not understood'
            f'{_hint(where)}',
            where,
        )
    return found


def _hint(where: str) -> str:
    """Return what else may be wrong if only the outputs differ, and no operation before them."""
    if where:
        return ''
    return (
        ', or it selects from equal scores (top-k, NMS) out of sight of PyTorch: then give a '
        'forward that returns what the selection is made from'
    )


class _Fingerprint(NamedTuple):
    """Norm and sum of what an operation returned, and the module that was running.

    Whole tensors of a run would not fit into memory twice.
    """

    module: str
    operation: str
    shape: torch.Size
    norm: float
    total: float

    @classmethod
    def of(cls, tensor: Tensor, module: str, operation: str) -> '_Fingerprint':
        values = tensor.detach()
        total = values.sum(dtype=torch.float64).item()
        return cls(module, operation, tensor.shape, values.norm().item(), total)


class _Decision(NamedTuple):
    """What an operation has decided (a top-k, an NMS, a threshold), and from which numbers.

    Of equal scores rounding picks one. Where a second run decides from the same numbers by equal
    settings (how many, along which axis), it gets what the first one decided, so that what
    follows can be compared.
    """

    numbers: list[Tensor]
    settings: list
    decided: object


DecisionKey = tuple[str, str, int]
"""Name of the running module, the operation, and how many of these came before."""


class _Run(NamedTuple):
    """Raw outputs of one run, a fingerprint of what every operation returned, and decisions."""

    outputs: list[Tensor]
    operations: list[_Fingerprint]
    decisions: dict[DecisionKey, _Decision]


class _FingerprintMode(TorchDispatchMode):
    """Takes the fingerprint of what every operation returns, in eval mode.

    Of several results the first is compared, and the others if an operation reads them. What is
    for a backward pass alone is read by none, and may be memory that nothing was written to: the
    log-sum-exp of attention on a CPU (PyTorch 2.1), the saved statistics of a normalisation.

    Args:
        earlier (dict): Decisions of an earlier run, which this one is to follow.
    """

    def __init__(self, earlier: Mapping[DecisionKey, _Decision]) -> None:
        super().__init__()
        self.module_stack: list[tuple[str, nn.Module]] = []
        self.operations: list[_Fingerprint] = []
        self.decisions: dict[DecisionKey, _Decision] = {}
        self._earlier = earlier
        self._number: Counter = Counter()
        self._held_entries = 0
        # Weak: a result that the model has dropped is read by nothing, and need not be held.
        self._unread = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        operation = func._schema.name
        for tensor in tensors_in((args, kwargs)):
            self._note_read(tensor)
        is_resize = operation in ('aten::resize_', 'aten::resize_as_')
        present = args[0].untyped_storage().nbytes() if is_resize else 0
        out = func(*args, **(kwargs or {}))
        name, module = self.module_stack[-1] if self.module_stack else ('', None)
        # Memory that nothing was written to holds anything, and no two runs the same. A tensor
        # that is resized keeps what it holds, so that only the memory beyond is cleared.
        if is_resize:
            memory = out.untyped_storage()
            out.new_empty(0, dtype=torch.uint8).set_(memory)[present:].zero_()
            return out
        if 'empty' in operation or 'resize' in operation:
            for tensor in tensors_in(out):
                tensor.zero_()
            return out
        if _decides(func, args, out):
            out = self._decide((name, operation), args, kwargs or {}, out)
        # A view was compared as its base. In train mode dropout is random, and the two runs draw
        # numbers for tensors of different shapes.
        if func.is_view or (module and module.training):
            return out
        first, others = (out[0], out[1:]) if len(func._schema.returns) > 1 else (out, ())
        for tensor in tensors_in(first):
            if tensor.is_floating_point():
                self.operations.append(_Fingerprint.of(tensor, name, operation))
        for tensor in tensors_in(others):
            if tensor.is_floating_point():
                self._unread[tensor] = name, operation
        return out

    def _note_read(self, tensor: Tensor) -> None:
        """Take the fingerprint of a result that an operation reads for the first time."""
        place = self._unread.pop(tensor, None)
        if place is not None:
            self.operations.append(_Fingerprint.of(tensor, *place))

    def _decide(self, place: tuple[str, str], args: tuple, kwargs: dict, out: object) -> object:
        """Note a decision, or return what an earlier run has decided from the same numbers."""
        key = (*place, self._number[place])
        self._number[place] += 1
        numbers = [t.detach() for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        settings = [v for v in (*args, *kwargs.items()) if not any(True for _ in tensors_in(v))]
        before = self._earlier.get(key)
        if before is not None:
            same = settings == before.settings and len(numbers) == len(before.numbers)
            same = same and all(
                difference([a], [b]) <= INNER_TOLERANCE
                for a, b in zip(numbers, before.numbers, strict=True)
            )
            return _cloned(before.decided) if same else out
        self._held_entries += sum(t.numel() for t in numbers)
        if self._held_entries <= MAX_HELD_ENTRIES:
            self.decisions[key] = _Decision(_cloned(numbers), settings, _cloned(out))
        return out


def _decides(func: OpOverload, args: tuple, out: object) -> bool:
    """Return whether an operation makes indices or flags from numbers."""
    if func.is_view or func._schema.is_mutable:
        return False
    results = list(tensors_in(out))
    return any(not t.is_floating_point() for t in results) and any(
        t.is_floating_point() for t in tensors_in(args)
    )


def _cloned(value: object) -> object:
    """Copy a tensor, or the tensors in a list or tuple; what is written into one is not seen."""
    if isinstance(value, list | tuple):
        return type(value)(map(_cloned, value))
    return value.clone() if isinstance(value, Tensor) else value


def _compare_runs(
    masked: nn.Module, slim: nn.Module, forward: ForwardFn
) -> tuple[float, str | None]:
    """Run both models and compare, see :func:`_compare`."""
    reference = _run(masked, forward, 'the model')
    return _compare(_run(slim, forward, 'the cut model', reference.decisions), reference)


def _run(
    model: nn.Module,
    forward: ForwardFn,
    which: str,
    decisions: Mapping[DecisionKey, _Decision] = MappingProxyType({}),
) -> _Run:
    """Run a model and take fingerprints; follow the decisions of an earlier run.

    Raises:
        EquivalenceError: If it does not run, naming the innermost module that was running.
    """
    observer, handles = _FingerprintMode(decisions), []
    for name, module in model.named_modules():

        def enter(module: nn.Module, args: tuple, name: str = name) -> None:
            observer.module_stack.append((name, module))

        def leave(module: nn.Module, args: tuple, output: object) -> None:
            observer.module_stack.pop()

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    try:
        with observer:
            outputs = raw_outputs(model, forward)
    except Exception as error:
        where = observer.module_stack[-1][0] if observer.module_stack else ''
        raise EquivalenceError(
            f'{which} does not run; it stops in {where or "its own code"} ({error})', where
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return _Run(outputs, observer.operations, observer.decisions)


def _compare(slim: _Run, masked: _Run) -> tuple[float, str | None]:
    """Compare two runs.

    What operations return on the way is compared, too, where it has the same shape. An error
    there, as a softmax that is scaled by another number of channels, may be too small to see in
    the outputs of an untrained model.

    Returns:
        tuple[float, str | None]: The relative difference, and the first module that differs: ''
        for the model itself, None if none does.
    """
    for cut_op, masked_op in zip(slim.operations, masked.operations, strict=False):
        # Not the same operation in the same module: the models take different paths from here
        # on, so only the outputs can be compared.
        if cut_op[:2] != masked_op[:2]:
            break
        found = _fingerprint_difference(cut_op, masked_op)
        if found > INNER_TOLERANCE:
            return found, cut_op.module
    found = difference(slim.outputs, masked.outputs)
    return found, '' if found > TOLERANCE else None


def _fingerprint_difference(slim: _Fingerprint, masked: _Fingerprint) -> float:
    """Return the relative difference of two fingerprints; 0 where they are not of one shape."""
    if slim.shape != masked.shape:
        return 0.0
    finite = [math.isfinite(one.norm) and math.isfinite(one.total) for one in (slim, masked)]
    if not all(finite):
        return float('inf') if any(finite) else 0.0
    norm, total = abs(slim.norm - masked.norm), abs(slim.total - masked.total)
    # A sum of n entries is at most sqrt(n) times their norm (Cauchy-Schwarz); divided by that it
    # is on the scale of the norm.
    largest = max(norm, total / max(1.0, masked.shape.numel() ** 0.5))
    return largest and largest / masked.norm if masked.norm else largest and float('inf')


def _compare_in_double(
    masked: nn.Module, slim: nn.Module, forward: ForwardFn
) -> tuple[float, str | None] | None:
    """Compare in float64; return None if the models cannot run so. Both are converted in place."""
    try:
        return _compare_runs(in_double(masked), in_double(slim), forward)
    except EquivalenceError:
        return None


def in_double(model: nn.Module) -> nn.Module:
    """Convert a model to float64, in place, so that it takes inputs in float32; return it."""
    for module in model.double().modules():
        module.register_forward_pre_hook(_inputs_in_double, with_kwargs=True)
    return model


def _inputs_in_double(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Convert what ``forward`` passes to a module, since that brings its own input in float32."""

    def double(value: object) -> object:
        if isinstance(value, Tensor):
            return value.double() if value.is_floating_point() else value
        if type(value) in (list, tuple):  # images of a detector of torchvision
            return type(value)(map(double, value))
        return value

    return tuple(map(double, args)), {key: double(value) for key, value in kwargs.items()}
