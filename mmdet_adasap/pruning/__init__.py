# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .budget import UnreachableTarget, choose
from .finding import find_channels
from .groups import ChannelGroup, Channels, Member
from .importance import Importance, MagnitudeImportance, TaylorImportance, per_channel
from .masks import ChannelMasks
from .oracle import WrongCut, check_cut
from .pruner import Pruner, check_target
from .structure import StructureError, check_structure, keep_of, kept_of
from .surgery import channel_counts, cut
from .tracing import trace_channels

__all__ = [
    'ChannelGroup',
    'ChannelMasks',
    'Channels',
    'Importance',
    'MagnitudeImportance',
    'Member',
    'Pruner',
    'StructureError',
    'TaylorImportance',
    'UnreachableTarget',
    'WrongCut',
    'channel_counts',
    'check_cut',
    'check_structure',
    'check_target',
    'choose',
    'cut',
    'find_channels',
    'keep_of',
    'kept_of',
    'per_channel',
    'trace_channels',
]
