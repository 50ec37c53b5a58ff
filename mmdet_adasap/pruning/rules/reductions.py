# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Reductions, and operations along one axis (softmax, sort)."""

from ..channel_ids import ChannelLabel
from .call import Call, is_zero, label_axes, make_label, rule


@rule('sum', 'linalg_vector_norm', 'norm')
def total(call: Call) -> ChannelLabel | None:
    """Pass a sum over channels, to which a masked channel adds 0.

    So it is with norms, but for those of negative order, which look for the smallest entry.
    """
    order = call.arg(1) if call.operation != 'sum' else None
    return _reduce(call, harmless=not (isinstance(order, int | float) and order < 0))


@rule(
    *('mean', 'amax', 'amin', 'max', 'min', 'argmax', 'argmin', 'prod', 'any', 'all'),
    *('var', 'std', 'var_mean', 'std_mean'),
)
def reduce(call: Call) -> ChannelLabel | None:
    return _reduce(call, harmless=False)


def _reduce(call: Call, harmless: bool) -> ChannelLabel | list[ChannelLabel | None] | None:
    """Freeze channels that are reduced over, unless zeros are harmless; return the rest."""
    x = call.args[0]
    label = call.label_of(x)
    out = call.out[0] if isinstance(call.out, tuple) else call.out
    # norm(x, ord, dim), sum(x, dim)
    position = 2 if call.operation in ('linalg_vector_norm', 'norm') else 1
    dims = call.arg(position, None, 'dim')
    if isinstance(dims, int):
        dims = [dims]
    if not isinstance(dims, list | tuple) or not dims:
        dims = range(x.dim())
    dims = {d % x.dim() for d in dims}
    if not (harmless and is_zero(label)):
        call.freeze(label, dims, f'{call.operation} over channels')
    axes, kept_dims = {}, out.dim() == x.dim()
    for axis, vector in label_axes(label).items():
        if axis not in dims:
            # Without keepdim the axes behind a reduced one move up.
            axes[axis if kept_dims else axis - sum(d < axis for d in dims)] = vector
    kept = make_label(axes, is_zero(label))
    return [kept, kept] if isinstance(call.out, tuple) else kept


@rule('_softmax', '_log_softmax', 'sort', 'topk', 'cumsum')
def along_axis(call: Call) -> ChannelLabel | list[ChannelLabel | None] | None:
    label = call.label_of(call.args[0])
    position = 2 if call.operation == 'topk' else 1
    axis = call.arg(position, -1, 'dim') % call.args[0].dim()
    call.freeze(label, [axis], f'{call.operation} over channels')
    kept = make_label({a: v for a, v in label_axes(label).items() if a != axis}, False)
    return [kept, kept] if isinstance(call.out, tuple) else kept
