# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The functions of the package for Python scripts: prune, load, test and export models."""

from ..checkpoint import load_pruned
from ..export import export_pruned
from ..integration import build_dense
from ..robustness.evaluate import evaluate_robustness
from ..robustness.models import ModelSource
from .inference import init_pruned_classifier, init_pruned_detector
from .latency import list_layers, measure_table
from .pruning import (
    apply_structure,
    build_forward,
    find_image_size,
    predict_slim_channels,
    prune_model,
)

__all__ = [
    'ModelSource',
    'apply_structure',
    'build_dense',
    'build_forward',
    'evaluate_robustness',
    'export_pruned',
    'find_image_size',
    'init_pruned_classifier',
    'init_pruned_detector',
    'list_layers',
    'load_pruned',
    'measure_table',
    'predict_slim_channels',
    'prune_model',
]
