# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""A pruned model in files that need nothing of this package."""

from .comparison import format_table
from .export import export_pruned
from .layers_file import cut_to_first, describe_layers
from .network_time import open_network, time_share, time_share_on, write_network
from .onnx import check_onnx

__all__ = [
    'check_onnx',
    'cut_to_first',
    'describe_layers',
    'export_pruned',
    'format_table',
    'open_network',
    'time_share',
    'time_share_on',
    'write_network',
]
