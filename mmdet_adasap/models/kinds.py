# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""Which of the packages a model comes from."""

import sys

from torch import nn

from ..registration import mmdet_works


def is_detector(model: nn.Module) -> bool:
    """Whether a model is a detector of mmdet."""
    if not mmdet_works():
        return False
    from mmdet.models.detectors import BaseDetector

    return isinstance(model, BaseDetector)


def is_classifier(model: nn.Module) -> bool:
    """Whether a model is a classifier of mmpretrain, which is not imported for the question."""
    package = sys.modules.get('mmpretrain.models')
    return package is not None and isinstance(model, package.BaseClassifier)
