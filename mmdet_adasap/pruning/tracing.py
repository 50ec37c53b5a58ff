# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the tied channels of a model by running it once."""

import contextlib
import dataclasses
import functools
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator

import numpy as np
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..errors import NeedsValuesError
from .channel_ids import ChannelLabel, ChannelUnionFind
from .groups import OUTPUT, PrunableChannels, build_channels
from .model_state import ForwardFn, eval_mode, output_tensors, preserve_state, tensors_in
from .rules import EXTENSION_RULES, RULES, Call, is_pointwise, label_axes, pointwise
from .shape_only import ShapeOnlyExecutor, has_storage
from .slicing import channel_attributes, is_layer


def trace_channels(
    model: nn.Module, forward: ForwardFn, excluded: Collection[str] = (), shape_only: bool = True
) -> PrunableChannels:
    """Run a model once and find which channels can only be removed together.

    The model runs in eval mode and without gradients, and is left as it was. Convolutions and
    matrix products are not computed, as long as nothing that the model does depends on their
    results; else it runs once more, with all arithmetic.

    Args:
        model (nn.Module): Any model, on any device.
        forward (Callable): Called with the model; runs it on a real input, batch size 1 or
            more, and returns its raw outputs, which are never cut.
        excluded (Collection[str]): Names of modules. No channel is removed that reaches or leaves
            an operation which runs in one of them (not in its children). '' is the model.
        shape_only (bool): Whether to skip arithmetic where possible. Defaults to True.

    Returns:
        PrunableChannels: Groups of channels, what they cost, and why the others are frozen.

    Raises:
        ValueError: If ``forward`` returns no tensors.
    """
    traced = None
    if shape_only:
        # Values matter (NeedsValuesError), or the model itself fails on zeros: repeated below with
        # all arithmetic, where a real fault of the model shows again.
        with contextlib.suppress(Exception):
            traced = _trace(model, forward, excluded, ShapeOnlyExecutor())
    tracer, outputs = traced or _trace(model, forward, excluded)
    for tensor in outputs:
        label = tracer.label_of(tensor)
        for nodes in label.axes.values() if label else ():
            tracer.nodes.freeze(nodes, OUTPUT)
    return build_channels(
        model, tracer.nodes, tracer.flops, tracer.unused_parameters, tracer.attributes
    )


def _trace(
    model: nn.Module,
    forward: ForwardFn,
    excluded: Collection[str],
    executor: ShapeOnlyExecutor | None = None,
) -> tuple['_Tracer', list[Tensor]]:
    """Run a model under a tracer; return that and the outputs."""
    tracer = _Tracer(model, excluded, executor)
    with (
        preserve_state(model),
        eval_mode(model),
        tracer.track_modules(),
        tracer.intercept_extensions(),
        _EscapeMode(tracer),
        tracer,
    ):
        outputs = output_tensors(forward(model))
    # The model has caught the error, and went on in a way that it would not have taken.
    if executor is not None and executor.stopped:
        raise NeedsValuesError
    return tracer, outputs


SIZED_OPERATIONS = {
    *('view', '_unsafe_view', 'reshape', 'split', 'split_with_sizes', 'expand', 'slice'),
    *('copy', 'index_put', 'index_put_impl', 'roi_align_forward'),
}
"""Operations that take sizes as arguments. The code of a module may take them from attributes of
it (``self.width``), which then have to change with the cut."""


class _EscapeMode(TorchFunctionMode):
    """Freezes what leaves for Python by methods that are not dispatched as operations."""

    ESCAPES = (Tensor.numpy, Tensor.__array__, Tensor.tolist)

    def __init__(self, tracer: '_Tracer') -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.ESCAPES:
            if self.tracer.executor is not None:
                self.tracer.executor.check(args[:1])
            label = self.tracer.label_of(args[0])
            for nodes in label.axes.values() if label else ():
                reason = f'Tensor.{func.__name__} in {self.tracer.module_name}'
                self.tracer.nodes.freeze(nodes, reason)
        return func(*args, **(kwargs or {}))


class _Tracer(TorchDispatchMode):
    """Propagates labels from parameters through every operation that PyTorch dispatches.

    Labels are kept by storage, offset, shape and stride rather than by object, since ``detach``,
    ``.data`` and views make new objects for the same values. Labelled tensors are held until the
    end, since the storage of a freed one may be given to another tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        excluded: Collection[str],
        executor: ShapeOnlyExecutor | None = None,
    ) -> None:
        super().__init__()
        self.executor = executor
        self.nodes = ChannelUnionFind()
        self.attributes: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        self.flops: list[tuple] = []
        self._labels: dict[tuple, ChannelLabel] = {}
        self._held: list[Tensor] = []
        self._names: dict[tuple, str] = {}
        self._parameters = dict(model.named_parameters())
        for name, tensor in (*self._parameters.items(), *model.named_buffers()):
            if has_storage(tensor) and tensor.numel():
                self._names.setdefault(_key(tensor), name)
        self._modules = dict(model.named_modules())
        # PyTorch's MultiheadAttention checks embed_dim and head_dim, which it was built with.
        attention = [n for n, m in self._modules.items() if isinstance(m, nn.MultiheadAttention)]
        self._excluded = {
            **dict.fromkeys(attention, 'attention'),
            **dict.fromkeys(excluded, 'a module left whole after a trial cut'),
        }
        self._module_names = {module: name for name, module in self._modules.items()}
        self._module_stack: list[str] = []
        self._reached: set[str] = set()

    @contextlib.contextmanager
    def track_modules(self) -> Iterator[None]:
        """Keep a stack of the running modules, for reasons and attributes."""

        def enter(module: nn.Module, args: tuple) -> None:
            self._module_stack.append(self._module_names.get(module, type(module).__name__))

        def leave(module: nn.Module, args: tuple, output: object) -> None:
            self._module_stack.pop()

        handles = [
            nn_module.register_module_forward_pre_hook(enter),
            nn_module.register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def intercept_extensions(self) -> Iterator[None]:
        """Wrap the functions of mmcv's compiled extension, which PyTorch does not dispatch.

        They are bound with pybind11 rather than registered as operators (mmcv 2.x).
        """
        extension = sys.modules.get('mmcv._ext')
        functions = {
            name: function
            for name, function in (vars(extension) if extension else {}).items()
            if callable(function) and not name.startswith('_')
        }

        def watch(name: str, function: Callable) -> Callable:
            @functools.wraps(function)
            def watched(*args, **kwargs):
                # What the function does inside is not to be traced a second time.
                with _disable_current_modes():
                    rule = EXTENSION_RULES.get(name)
                    return self._follow(function, name, args, kwargs, rule)

            return watched

        for name, function in functions.items():
            setattr(extension, name, watch(name, function))
        try:
            yield
        finally:
            for name, function in functions.items():
                setattr(extension, name, function)

    @property
    def _current_module(self) -> str:
        return self._module_stack[-1] if self._module_stack else ''

    @property
    def module_name(self) -> str:
        """Name of the running module, for messages."""
        return self._current_module or 'the model'

    @property
    def unused_parameters(self) -> list[str]:
        """Parameters that took no part in the run."""
        return [name for name in self._parameters if name not in self._reached]

    def label_of(self, tensor: Tensor) -> ChannelLabel | None:
        """Return the label of a tensor; a parameter or buffer gets its nodes when first asked."""
        if not isinstance(tensor, Tensor) or not has_storage(tensor) or not tensor.numel():
            return None
        key = _key(tensor)
        if key not in self._labels and key in self._names:
            name = self._names[key]
            self._reached.add(name)
            axes = {
                axis: self.nodes.nodes(name, axis, size)
                for axis, size in enumerate(tensor.shape)
                if size > 1  # the only index of an axis cannot be removed
            }
            if axes:
                # Masking zeroes parameters; statistics in buffers keep their values.
                self._labels[key] = ChannelLabel(axes, zero=name in self._parameters)
                self._held.append(tensor)
        return self._labels.get(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        rule = RULES.get(name) or (pointwise if is_pointwise(func) else None)
        return self._follow(func, name, args, kwargs or {}, rule, func._schema.is_mutable)

    def _follow(self, func, name, args, kwargs, rule, is_mutable=True):
        """Run an operation and label what it returns."""
        # In-place operations change what a label describes, so look before running.
        inputs = list(tensors_in((args, kwargs)))
        labelled = [t for t in inputs if self.label_of(t) is not None]
        if self.executor is None:
            out = func(*args, **kwargs)
        else:
            out = self.executor.execute(
                func, name, args, kwargs, inputs, bool(labelled), rule is not None, is_mutable
            )
        # Constants alone; a rule still runs, since it may label a new tensor (zeros).
        if not labelled and rule is None:
            return out
        call = Call(
            func=func,
            name=name,
            args=args,
            kwargs=kwargs,
            out=out,
            nodes=self.nodes,
            label_of=self.label_of,
            write=self._set,
            module_name=self.module_name,
            module=self._modules.get(self._current_module),
            count_flops=lambda *term: self.flops.append(term),
        )
        why, results = f'{name}, which has no rule,', None
        if rule is not None:
            try:
                why, results = None, _checked(rule(call))
            # Arguments that a rule does not know must not stop the trace: freezing is safe.
            except Exception as error:
                why = f'{name}, whose rule fails ({type(error).__name__}: {error}),'
                warnings.warn(f'channels that reach {why} are left whole', stacklevel=2)
        if why is not None:
            for tensor in labelled:
                call.freeze(self.label_of(tensor), None, why)
        outputs = out if isinstance(out, list | tuple) else [out]
        results = results if isinstance(results, list) else [results]
        for i, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                self._set(tensor, results[i] if i < len(results) else None)
                if is_mutable:
                    self._clear_zero_flags(tensor)
        if self._current_module in self._excluded:
            for tensor in (*labelled, *tensors_in(out)):
                call.freeze(self.label_of(tensor), None, self._excluded[self._current_module])
        if call.operation in SIZED_OPERATIONS:
            self._note_attributes(outputs)
        return out

    def _note_attributes(self, outputs: list) -> None:
        """Note which attributes of the running module are the lengths of channel axes."""
        module = self._modules.get(self._current_module)
        if module is None or is_layer(module):
            return
        counts = channel_attributes(module)
        for tensor in outputs:
            for axis, vector in label_axes(self.label_of(tensor)).items():
                named = [name for name, count in counts.items() if count == tensor.shape[axis]]
                # With as many heads as each is wide, both match; heads go, the width stays.
                heads = [name for name in named if 'heads' in name]
                for name in heads or named:
                    self.attributes[self._current_module, name].append(vector)

    def _set(self, tensor: Tensor, label: ChannelLabel | None) -> None:
        """Give a tensor a label, or none; parameters and buffers keep theirs."""
        if not has_storage(tensor) or not tensor.numel() or _key(tensor) in self._names:
            return
        if label is None:
            self._labels.pop(_key(tensor), None)
        else:
            self._labels[_key(tensor)] = label
            self._held.append(tensor)

    def _clear_zero_flags(self, written: Tensor) -> None:
        """Mark all views of a storage as not 0 when masked, if what was written is not."""
        label, own = self.label_of(written), _key(written)
        if label is None or label.zero:
            return
        for key, other in self._labels.items():
            if key[0] == own[0] and key[-1] == own[-1]:
                self._labels[key] = dataclasses.replace(other, zero=False)


def _checked(results: object) -> object:
    """Return what a rule returned, if it is a label, None or a list of them.

    Raises:
        TypeError: If it is anything else.
    """
    for result in results if isinstance(results, list) else [results]:
        if result is not None and not isinstance(result, ChannelLabel):
            raise TypeError(
                f'it returned a {type(result).__name__}, not a ChannelLabel, a list or None'
            )
    return results


def _key(tensor: Tensor) -> tuple:
    """Return what two tensors share only if they are the same view of the same memory."""
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.device,
    )
