# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The library that a model is from, a class of mmdet that has to be mended, and quiet logging."""

import functools
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import nn

MENDED = '_mended_by_mmdet_adasap'

# The smallest SSDHead that can be built, in milliseconds.
_TINY_HEAD = {
    'num_classes': 1,
    'in_channels': (1,),
    'anchor_generator': {'type': 'AnchorGenerator', 'scales': [1], 'ratios': [1], 'strides': [8]},
}


def is_detector(model: nn.Module) -> bool:
    """Return whether a model is a detector of mmdet, without importing mmdet to see it."""
    # If the model were one, its class would have been imported.
    package = sys.modules.get('mmdet.models.detectors')
    return package is not None and isinstance(model, package.BaseDetector)


def is_classifier(model: nn.Module) -> bool:
    """Return whether a model is a classifier of mmpretrain, without importing that to see it."""
    package = sys.modules.get('mmpretrain.models')
    return package is not None and isinstance(model, package.BaseClassifier)


@contextmanager
def quiet_logging(level: int) -> Iterator[None]:
    """Suppress what is logged at a level or below it inside the with block, and nothing after it.

    A logger remembers for each level whether it is enabled. ``logging.disable`` lets the loggers
    of Python forget it, and not mmengine's: one that was first asked inside would stay off.

    Args:
        level (int): As ``logging.WARNING``.
    """
    before = logging.root.manager.disable
    _disable_logging(max(before, level))
    try:
        yield
    finally:
        _disable_logging(before)


def _disable_logging(level: int) -> None:
    logging.disable(level)
    logger = MMLogger.get_current_instance()
    # To set the level that it has lets all of mmengine's loggers forget what they remember.
    logger.setLevel(logger.level)


def ssd_head_can_predict() -> bool:
    """Return whether a new SSDHead has the ``loss_cls`` that its inherited ``predict`` reads.

    Returns:
        bool: False in mmdet 3.2 and later, unless mended.
    """
    from mmdet.models.dense_heads import SSDHead

    # The scope may be mmpretrain's, whose registries have no AnchorGenerator; and new weights must
    # not move the user's random state.
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        torch.random.fork_rng(devices=[]),
    ):
        return hasattr(SSDHead(**_TINY_HEAD), 'loss_cls')


def ssd_head_is_mended() -> bool:
    """Return whether :func:`mend_ssd_head` had something to mend in this process."""
    from mmdet.models.dense_heads import SSDHead

    return hasattr(SSDHead.__init__, MENDED)


def mend_ssd_head() -> bool:
    """Give SSDHead the attribute without which it cannot predict, if it lacks it.

    Since mmdet 3.2 ``BaseDenseHead._predict_by_feat_single`` asks ``self.loss_cls`` for
    ``custom_cls_channels``. ``SSDHead.__init__`` skips that of AnchorHead, which would set it, and
    ``predict`` dies with "'SSDHead' object has no attribute 'loss_cls'" (open-mmlab/mmdetection
    issues 11063, 11305 and 11780). SSDHead computes its loss without a loss module, so None says
    the truth: no custom channels, scores are a softmax with the background last.

    The class itself is mended instead of a subclass registered over its name, because PISASSDHead
    derives from it and new-style configs name the class, not the registry's string. It is set in
    ``__init__``, not on the class: a class attribute would hide a ``loss_cls`` module that a
    subclass sets. Parameters and state dict stay what they were.

    Returns:
        bool: Whether there was something to mend.
    """
    from mmdet.models.dense_heads import SSDHead

    if ssd_head_can_predict():
        return False
    init = SSDHead.__init__

    @functools.wraps(init)
    def init_with_loss_cls(self, *args, **kwargs) -> None:
        init(self, *args, **kwargs)
        self.loss_cls = None

    setattr(init_with_loss_cls, MENDED, True)
    SSDHead.__init__ = init_with_loss_cls
    return True
