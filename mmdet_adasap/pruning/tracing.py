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
from .groups import PrunableChannels, build_channels
from .model_state import ForwardFn, eval_mode, output_tensors, preserve_state, tensors_in
from .rules import EXTENSION_RULES, RULES, Call, is_pointwise, label_axes, pointwise
from .shape_only import ShapeOnlyExecutor, has_storage
from .slicing import channel_attributes, is_layer


def trace_channels(
    model: nn.Module, forward: ForwardFn, excluded: Collection[str] = (), dry: bool = True
) -> PrunableChannels:
    """Run a model once and see which channels can only be removed together.

    The model runs in eval mode and without gradients, and is left as it was. Convolutions and
    matrix products are not computed, as long as nothing that the model does depends on their
    results; else it runs once more, with all arithmetic.

    Args:
        model (nn.Module): Any model, on any device.
        forward (Callable): Called with the model; runs it on a real input, batch size 1 or
            more, and returns its raw outputs, which are never cut.
        excluded (Collection[str]): Names of modules; no channel goes that reaches or leaves an
            operation which runs in one of them (not in its children). '' is the model.
        dry (bool): Whether to leave arithmetic out. Defaults to True.

    Returns:
        Channels: Groups of channels, what each one costs, and what is left whole and why.

    Raises:
        ValueError: If ``forward`` returns no tensors.
    """
    traced = None
    if dry:
        with contextlib.suppress(Exception):  # numbers matter, or the model stops at zeros
            traced = _trace(model, forward, excluded, ShapeOnlyExecutor())
    tracer, outputs = traced or _trace(model, forward, excluded)
    for tensor in outputs:
        label = tracer.label_of(tensor)
        for nodes in label.axes.values() if label else ():
            tracer.nodes.freeze(nodes, 'output of the model')
    return build_channels(
        model, tracer.nodes, tracer.flops, tracer.unused_parameters, tracer.attributes
    )


def _trace(
    model: nn.Module,
    forward: ForwardFn,
    excluded: Collection[str],
    dry: ShapeOnlyExecutor | None = None,
) -> tuple['_Tracer', list[Tensor]]:
    tracer = _Tracer(model, excluded, dry)
    with (
        preserve_state(model),
        eval_mode(model),
        tracer.track_modules(),
        tracer.intercept_extensions(),
        _Leaving(tracer),
        tracer,
    ):
        outputs = output_tensors(forward(model))
    if dry is not None and dry.stopped:  # the model has caught what was raised
        raise NeedsValuesError
    return tracer, outputs


TAKE_SIZES = {
    *('view', '_unsafe_view', 'reshape', 'split', 'split_with_sizes', 'expand', 'slice'),
    *('copy', 'index_put', 'index_put_impl', 'roi_align_forward'),
}
"""Operations whose sizes come from the code of a module, which may have them from itself."""


class _Leaving(TorchFunctionMode):
    """Freezes what leaves the graph by ways that are not dispatched as operations."""

    WAYS = (Tensor.numpy, Tensor.__array__, Tensor.tolist)

    def __init__(self, tracer: '_Tracer') -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.WAYS:
            if self.tracer.dry is not None:
                self.tracer.dry.check(args[:1])
            label = self.tracer.label_of(args[0])
            for nodes in label.axes.values() if label else ():
                reason = f'Tensor.{func.__name__} in {self.tracer.module_name}'
                self.tracer.nodes.freeze(nodes, reason)
        return func(*args, **(kwargs or {}))


class _Tracer(TorchDispatchMode):
    """Carries labels from parameters through every operation that PyTorch dispatches.

    Labels are kept by storage, offset, shape and stride rather than by object, since
    ``detach``, ``.data`` and views make new objects for the same values. Labelled tensors
    are held until the end: a freed one could lend its storage to another.
    """

    def __init__(
        self, model: nn.Module, excluded: Collection[str], dry: ShapeOnlyExecutor | None = None
    ) -> None:
        super().__init__()
        self.dry = dry
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
        # Its code reads sizes that it was made with.
        attention = [n for n, m in self._modules.items() if isinstance(m, nn.MultiheadAttention)]
        self._whole = {
            **dict.fromkeys(attention, 'attention'),
            **dict.fromkeys(excluded, 'a module left whole after a trial cut'),
        }
        self._module_names = {module: name for name, module in self._modules.items()}
        self._running: list[str] = []
        self._met: set[str] = set()

    @contextlib.contextmanager
    def track_modules(self) -> Iterator[None]:
        """Follow which module is running, for the reports."""

        def enter(module: nn.Module, args: tuple) -> None:
            self._running.append(self._module_names.get(module, type(module).__name__))

        def leave(module: nn.Module, args: tuple, output: object) -> None:
            self._running.pop()

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
        """Meet the functions of mmcv's compiled extension, which are not dispatched."""
        extension = sys.modules.get('mmcv._ext')
        functions = {
            name: function
            for name, function in (vars(extension) if extension else {}).items()
            if callable(function) and not name.startswith('_')
        }

        def watch(name: str, function: Callable) -> Callable:
            @functools.wraps(function)
            def watched(*args, **kwargs):
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
    def _running_now(self) -> str:
        return self._running[-1] if self._running else ''

    @property
    def module_name(self) -> str:
        """Name of the module that is running."""
        return self._running_now or 'the model'

    @property
    def unused_parameters(self) -> list[str]:
        """Parameters that took no part in the run."""
        return [name for name in self._parameters if name not in self._met]

    def label_of(self, tensor: Tensor) -> ChannelLabel | None:
        if not isinstance(tensor, Tensor) or not has_storage(tensor) or not tensor.numel():
            return None
        key = _key(tensor)
        if key not in self._labels and key in self._names:
            name = self._names[key]
            self._met.add(name)
            axes = {
                axis: self.nodes.nodes(name, axis, size)
                for axis, size in enumerate(tensor.shape)
                if size > 1
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
        if self.dry is None:
            out = func(*args, **kwargs)
        else:
            out = self.dry.execute(
                func, name, args, kwargs, inputs, bool(labelled), rule is not None, is_mutable
            )
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
            module=self._modules.get(self._running_now),
            count_flops=lambda *term: self.flops.append(term),
        )
        why, results = f'{name}, which has no rule,', None
        if rule is not None:
            try:
                why, results = None, _checked(rule(call))
            except Exception as error:  # arguments that the rule does not know
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
                    self._lose_zeros(tensor)
        if self._running_now in self._whole:
            for tensor in (*labelled, *tensors_in(out)):
                call.freeze(self.label_of(tensor), None, self._whole[self._running_now])
        if call.operation in TAKE_SIZES:
            self._remember_sizes(outputs)
        return out

    def _remember_sizes(self, outputs: list) -> None:
        """Attributes of the running module that gave a tensor the size of its channel axes."""
        module = self._modules.get(self._running_now)
        if module is None or is_layer(module):
            return
        counts = channel_attributes(module)
        for tensor in outputs:
            for axis, vector in label_axes(self.label_of(tensor)).items():
                named = [name for name, count in counts.items() if count == tensor.shape[axis]]
                # Heads may be as many as each of them is wide; the width stays.
                heads = [name for name in named if 'heads' in name]
                for name in heads or named:
                    self.attributes[self._running_now, name].append(vector)

    def _set(self, tensor: Tensor, label: ChannelLabel | None) -> None:
        if not has_storage(tensor) or not tensor.numel() or _key(tensor) in self._names:
            return
        if label is None:
            self._labels.pop(_key(tensor), None)
        else:
            self._labels[_key(tensor)] = label
            self._held.append(tensor)

    def _lose_zeros(self, written: Tensor) -> None:
        """What was written may not be 0 when masked; nor then are other views of its storage."""
        label, own = self.label_of(written), _key(written)
        if label is None or label.zero:
            return
        for key, other in self._labels.items():
            if key[0] == own[0] and key[-1] == own[-1]:
                self._labels[key] = dataclasses.replace(other, zero=False)


def _checked(results: object) -> object:
    """What a rule may return.

    Raises:
        TypeError: If it is anything else.
    """
    for result in results if isinstance(results, list) else [results]:
        if result is not None and not isinstance(result, ChannelLabel):
            raise TypeError(f'it returned a {type(result).__name__}, not a Label, a list or None')
    return results


def _key(tensor: Tensor) -> tuple:
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.shape,
        tensor.stride(),
        tensor.device,
    )
