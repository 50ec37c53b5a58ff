# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
import functools

import torch
from mmdet.models.dense_heads import SSDHead

_TINY_HEAD = {
    'num_classes': 1,
    'in_channels': (1,),
    'anchor_generator': {'type': 'AnchorGenerator', 'scales': [1], 'ratios': [1], 'strides': [8]},
}


def ssd_head_can_predict() -> bool:
    """Whether a new SSDHead has the ``loss_cls`` that its inherited ``predict`` looks at.

    Returns:
        bool: False in mmdet 3.2 and later, unless mended.
    """
    with torch.random.fork_rng(devices=[]):  # new weights must not move the user's random state
        return hasattr(SSDHead(**_TINY_HEAD), 'loss_cls')


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
    if ssd_head_can_predict():
        return False
    init = SSDHead.__init__

    @functools.wraps(init)
    def init_with_loss_cls(self: SSDHead, *args, **kwargs) -> None:
        init(self, *args, **kwargs)
        self.loss_cls = None

    SSDHead.__init__ = init_with_loss_cls
    return True
