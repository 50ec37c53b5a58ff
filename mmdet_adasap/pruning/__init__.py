# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the channels that are tied, choose which go, and cut them off; plain PyTorch."""

from .analysis import find_channels
from .equivalence import check_cut, difference, raw_outputs
from .groups import NOT_TRAINED, ChannelGroup, Channels, Member
from .importance import Importance, MagnitudeImportance, TaylorImportance, per_channel
from .masks import ChannelMasks, mask
from .model_state import (
    ForwardFn,
    check_model,
    evaluating,
    keeping_modes,
    keeping_state,
    output_tensors,
)
from .pruner import Pruner, check_target
from .selection import choose
from .slicing import channel_counts, check_dense, check_fits, check_states, cut, misshapen_state
from .structure import (
    META_KEY,
    PHASES,
    Keep,
    check_structure,
    cut_of,
    digest,
    is_cut,
    keep_of,
    kept_of,
    named_tensors,
    remember,
    with_integer_axes,
)
from .tracing import trace_channels

__all__ = [
    'META_KEY',
    'NOT_TRAINED',
    'PHASES',
    'ChannelGroup',
    'ChannelMasks',
    'Channels',
    'ForwardFn',
    'Importance',
    'Keep',
    'MagnitudeImportance',
    'Member',
    'Pruner',
    'TaylorImportance',
    'channel_counts',
    'check_cut',
    'check_dense',
    'check_fits',
    'check_model',
    'check_states',
    'check_structure',
    'check_target',
    'choose',
    'cut',
    'cut_of',
    'difference',
    'digest',
    'evaluating',
    'find_channels',
    'is_cut',
    'keep_of',
    'keeping_modes',
    'keeping_state',
    'kept_of',
    'mask',
    'misshapen_state',
    'named_tensors',
    'output_tensors',
    'per_channel',
    'raw_outputs',
    'remember',
    'trace_channels',
    'with_integer_axes',
]
