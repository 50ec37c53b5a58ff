# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Rules: what each tensor operation does to the channels that reach it.

A rule takes the :class:`Call` and returns the
:class:`~mmdet_adasap.pruning.channel_ids.ChannelLabel` of the result (a list of them for several
results), or None where nothing of the result can shrink. A rule freezes the axes of its arguments
that it does not pass on: what is not understood is never cut. An operation without a rule freezes
everything that reaches it.

The tracer counts multiply-accumulates as mmengine's ``get_model_complexity_info`` does, so that
fractions of FLOPs agree with what its tool reports.
"""

from . import (  # noqa: F401
    attention,
    extensions,
    indexing,
    layers,
    memory,
    reductions,
    shapes,
    spatial,
)
from .call import (
    EXTENSION_RULES,
    RULES,
    Call,
    extension_rule,
    is_zero,
    label_axes,
    make_label,
    rule,
)
from .pointwise import is_pointwise, pointwise

__all__ = [
    'EXTENSION_RULES',
    'RULES',
    'Call',
    'extension_rule',
    'is_pointwise',
    'is_zero',
    'label_axes',
    'make_label',
    'pointwise',
    'rule',
]
