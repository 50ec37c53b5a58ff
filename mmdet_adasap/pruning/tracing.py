# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the tied channels of a model by running it once."""

import contextlib
import functools
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..errors import NeedsValuesError
from .channel_ids import ChannelLabel, ChannelUnionFind
from .groups import OUTPUT, PrunableChannels, build_channels
from .label_store import LabelStore
from .layer_calls import LayerKey
from .model_state import ForwardFn, eval_mode, output_tensors, preserve_state, tensors_in
from .repeats import times
from .rules import EXTENSION_RULES, RULES, Call, is_pointwise, label_axes, pointwise
from .shape_only import ShapeOnlyExecutor, has_storage
from .slicing import channel_attributes, is_layer
from .split_choices import SplitChoices


def trace_channels(
    model: nn.Module, forward: ForwardFn, shape_only: bool = True
) -> PrunableChannels:
    """Run a model once and find which channels can only be removed together.

    The model runs in eval mode and without gradients, and is left as it was. Convolutions and
    matrix products are not computed, as long as nothing that the model does depends on their
    results; else it runs once more, with all arithmetic.

    Args:
        model (nn.Module): Any model, on any device.
        forward (Callable): Called with the model; runs it on a real input, batch size 1 or
            more, and returns its raw outputs, which are never cut.
        shape_only (bool): Whether to skip arithmetic where possible. Defaults to True.

    Returns:
        PrunableChannels: Groups of channels, what they cost, and why the others are frozen.

    Raises:
        ValueError: If ``forward`` returns no tensors.
    """
    splits = SplitChoices()
    tracer, outputs = _trace_by(splits, model, forward, shape_only)
    while splits.is_revised:
        tracer, outputs = _trace_by(splits, model, forward, shape_only)
    for tensor in outputs:
        label = tracer.labels.get(tensor)
        for nodes in label.axes.values() if label else ():
            tracer.nodes.freeze(nodes, OUTPUT)
    return build_channels(
        model,
        tracer.nodes,
        tracer.flops,
        tracer.layers,
        tracer.labels.unused_parameters,
        tracer.attributes,
    )


def _trace_by(
    splits: SplitChoices,
    model: nn.Module,
    forward: ForwardFn,
    shape_only: bool,
) -> tuple['_Tracer', list[Tensor]]:
    """Trace a model without its arithmetic, where that is wanted and possible."""
    if shape_only:
        # Values matter (NeedsValuesError), or the model itself fails on zeros: repeated below with
        # all arithmetic, where a real fault of the model shows again.
        with contextlib.suppress(Exception):
            return _trace(splits, model, forward, ShapeOnlyExecutor())
    return _trace(splits, model, forward)


def _trace(
    splits: SplitChoices,
    model: nn.Module,
    forward: ForwardFn,
    executor: ShapeOnlyExecutor | None = None,
) -> tuple['_Tracer', list[Tensor]]:
    """Run a model under a tracer; return that and the outputs."""
    splits.begin_trace()
    tracer = _Tracer(model, splits, executor)
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
    *('copy', 'index_put', 'index_put_impl', 'resize', 'as_strided', 'roi_align_forward'),
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
            label = self.tracer.labels.get(args[0])
            for nodes in label.axes.values() if label else ():
                reason = f'Tensor.{func.__name__} in {self.tracer.module_name}'
                self.tracer.nodes.freeze(nodes, reason)
        return func(*args, **(kwargs or {}))


class _Tracer(TorchDispatchMode):
    """Propagates labels from parameters through every operation that PyTorch dispatches."""

    def __init__(
        self,
        model: nn.Module,
        splits: SplitChoices,
        executor: ShapeOnlyExecutor | None = None,
    ) -> None:
        super().__init__()
        self.executor = executor
        self._splits = splits
        self.nodes = ChannelUnionFind()
        self.attributes: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        self.flops: list[tuple] = []
        self.layers: list[tuple] = []
        self.labels = LabelStore(model, self.nodes)
        self._modules = dict(model.named_modules())
        # PyTorch's MultiheadAttention checks embed_dim and head_dim, which it was built with.
        self._attention = {
            name for name, m in self._modules.items() if isinstance(m, nn.MultiheadAttention)
        }
        self._module_names = {module: name for name, module in self._modules.items()}
        self._module_stack: list[str] = []

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

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        rule = RULES.get(name) or (pointwise if is_pointwise(func) else None)
        return self._follow(func, name, args, kwargs or {}, rule, func._schema.is_mutable)

    def _follow(self, func, name, args, kwargs, rule, is_mutable=True):
        """Run an operation and label what it returns."""
        # In-place operations change what a label describes, so look before running.
        before = _as_before(func, args)
        moves = before is not args and has_storage(before[0])
        address = before[0].untyped_storage().data_ptr() if moves else None
        inputs = list(tensors_in((before, kwargs)))
        labelled = [t for t in inputs if self.labels.get(t) is not None]
        if self.executor is None:
            out = func(*args, **kwargs)
        else:
            # A tensor that a model has just made (ones) has a label, and is a constant as yet.
            has_channels = any(self.labels.get(t).axes for t in labelled)
            out = self.executor.execute(
                func, name, args, kwargs, inputs, has_channels, rule is not None, is_mutable
            )
        if moves:
            self.labels.move(address, before[0])
        # Constants alone; a rule still runs, since it may label a new tensor (zeros).
        if not labelled and rule is None:
            return out
        call = Call(
            func=func,
            name=name,
            args=before,
            kwargs=kwargs,
            out=out,
            nodes=self.nodes,
            label_of=self.labels.get,
            labels_in_memory=self.labels.in_memory_of,
            write=self.labels.set,
            splits=self._splits,
            module_name=self.module_name,
            module=self._modules.get(self._current_module),
            count_flops=lambda count, *axes: self.flops.append((count * times(), *axes)),
            record_layer=self._record_layer,
        )
        results = self._apply(rule, call, labelled)
        outputs = out if isinstance(out, list | tuple) else [out]
        for i, tensor in enumerate(outputs):
            if isinstance(tensor, Tensor):
                self.labels.set(tensor, results[i] if i < len(results) else None)
                if is_mutable:
                    self.labels.clear_zero_flags(tensor)
        if self._current_module in self._attention:
            for tensor in (*labelled, *tensors_in(out)):
                call.freeze(self.labels.get(tensor), None, 'attention')
        if call.operation in SIZED_OPERATIONS:
            self._note_attributes(outputs)
        return out

    def _record_layer(self, key: LayerKey, *axes: tuple) -> None:
        """Keep a layer call, with the inputs that it is going to run on."""
        batch = round(key.batch * times())
        if batch:
            self.layers.append((self.module_name, replace(key, batch=batch), *axes))

    def _apply(
        self, rule: Callable | None, call: Call, labelled: list[Tensor]
    ) -> list[ChannelLabel | None]:
        """Return the labels of what an operation returned; without a rule, freeze its inputs."""
        why = f'{call.name}, which has no rule,'
        if rule is not None:
            try:
                results = _checked(rule(call))
                return results if isinstance(results, list) else [results]
            # Arguments that a rule does not know must not stop the trace: freezing is safe.
            except Exception as error:
                why = f'{call.name}, whose rule fails ({type(error).__name__}: {error}),'
                warnings.warn(f'channels that reach {why} are left whole', stacklevel=2)
        for tensor in labelled:
            call.freeze(call.label_of(tensor), None, why)
        return []

    def _note_attributes(self, outputs: list) -> None:
        """Note which attributes of the running module are the lengths of channel axes."""
        module = self._modules.get(self._current_module)
        if module is None or is_layer(module):
            return
        counts = channel_attributes(module)
        for tensor in outputs:
            for axis, vector in label_axes(self.labels.get(tensor)).items():
                named = [name for name, count in counts.items() if count == tensor.shape[axis]]
                # With as many heads as each is wide, both match; heads go, the width stays.
                heads = [name for name in named if 'heads' in name]
                for name in heads or named:
                    self.attributes[self._current_module, name].append(vector)


def _as_before(func: Callable, args: tuple) -> tuple:
    """Return the arguments of an operation as they are before it runs.

    Labels are kept by shape and strides. An operation such as ``squeeze_`` changes these in place,
    and the label of its argument could not be found afterwards.
    """
    # set_ has the tag only in releases after PyTorch 2.1.
    is_set = getattr(func, '__name__', '').startswith('set_.')
    if is_set or torch.Tag.inplace_view in getattr(func, 'tags', ()):
        return (args[0].detach(), *args[1:])
    return args


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
