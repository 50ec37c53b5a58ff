# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .budget import UnreachableTarget, choose
from .groups import ChannelGroup, Channels, Member
from .importance import Importance, MagnitudeImportance, TaylorImportance
from .masks import ChannelMasks
from .oracle import WrongCut, check_cut
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
    'StructureError',
    'TaylorImportance',
    'UnreachableTarget',
    'WrongCut',
    'channel_counts',
    'check_cut',
    'check_structure',
    'choose',
    'cut',
    'keep_of',
    'kept_of',
    'trace_channels',
]
