# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from .building import build_dense
from .export import export_pruned
from .inference import init_pruned_classifier, init_pruned_detector
from .loading import load_pruned
from .pruning import apply_structure, forward_of, prune_model, slim_sizes, working_size
from .robustness import evaluate_robustness
from .robustness_models import ModelSource

__all__ = [
    'ModelSource',
    'apply_structure',
    'build_dense',
    'evaluate_robustness',
    'export_pruned',
    'forward_of',
    'init_pruned_classifier',
    'init_pruned_detector',
    'load_pruned',
    'prune_model',
    'slim_sizes',
    'working_size',
]
