# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Find the channels that are tied, choose which go, and cut them off; plain PyTorch."""

from .analysis import attribute_counts, find_channels
from .budget import Budget, Limit
from .equivalence import difference, raw_outputs, verify_cut
from .groups import NOT_TRAINED, ChannelGroup, Member, PrunableChannels
from .importance import Importance, MagnitudeImportance, TaylorImportance, per_channel
from .joint import check_objective, check_solver, select_jointly
from .latency_check import TimedChoice, TimeShare, most_correction, select_corrected, select_timed
from .latency_cost import LatencyCost
from .layer_calls import COMMON_STEP, LayerCall, LayerKey, widths
from .limits import latency_text
from .masks import ChannelMasks, mask
from .model_state import (
    ForwardFn,
    check_model,
    copy_model,
    eval_mode,
    output_tensors,
    preserve_modes,
    preserve_state,
    tensors_in,
)
from .pruner import Pruner
from .repeats import not_counted, repeated
from .selection import select_channels
from .slicing import channel_counts, check_dense, check_fits, check_states, cut, uncuttable_state
from .structure import (
    META_KEY,
    PHASES,
    VERSION,
    Keep,
    check_structure,
    digest,
    indices_from_masks,
    is_cut,
    last_cut,
    masks_from_structure,
    named_tensors,
    tag_model,
    tagged_structure,
    with_integer_axes,
)
from .target import (
    MAX_PRUNING_RATIO,
    RESOURCES,
    Target,
    check_max_pruning_ratio,
    check_target,
    default_step,
)
from .timed_networks import network_digest, timed_networks
from .tracing import trace_channels
from .training_pass import unused_weights
from .uniform_width import UniformWidth

__all__ = [
    'COMMON_STEP',
    'MAX_PRUNING_RATIO',
    'META_KEY',
    'NOT_TRAINED',
    'PHASES',
    'RESOURCES',
    'VERSION',
    'Budget',
    'ChannelGroup',
    'ChannelMasks',
    'ForwardFn',
    'Importance',
    'Keep',
    'LatencyCost',
    'LayerCall',
    'LayerKey',
    'Limit',
    'MagnitudeImportance',
    'Member',
    'PrunableChannels',
    'Pruner',
    'Target',
    'TaylorImportance',
    'TimeShare',
    'TimedChoice',
    'UniformWidth',
    'attribute_counts',
    'channel_counts',
    'check_dense',
    'check_fits',
    'check_max_pruning_ratio',
    'check_model',
    'check_objective',
    'check_solver',
    'check_states',
    'check_structure',
    'check_target',
    'copy_model',
    'cut',
    'default_step',
    'difference',
    'digest',
    'eval_mode',
    'find_channels',
    'indices_from_masks',
    'is_cut',
    'last_cut',
    'latency_text',
    'mask',
    'masks_from_structure',
    'most_correction',
    'named_tensors',
    'network_digest',
    'not_counted',
    'output_tensors',
    'per_channel',
    'preserve_modes',
    'preserve_state',
    'raw_outputs',
    'repeated',
    'select_channels',
    'select_corrected',
    'select_jointly',
    'select_timed',
    'tag_model',
    'tagged_structure',
    'tensors_in',
    'timed_networks',
    'trace_channels',
    'uncuttable_state',
    'unused_weights',
    'verify_cut',
    'widths',
    'with_integer_axes',
]
