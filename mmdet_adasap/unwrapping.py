# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without its distributed wrapper, if it has one."""
    return model.module if is_model_wrapper(model) else model
