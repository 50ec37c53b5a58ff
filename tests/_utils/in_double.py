# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""For the ``custom_imports`` of a config: detectors compute in float64."""

import torch
from mmdet.models.task_modules import SimOTAAssigner

torch.set_default_dtype(torch.float64)
assign = SimOTAAssigner.assign


def assign_in_float32(self, pred_instances, *args, **kwargs):
    """It knows nothing else. Rounding also leaves no last bits to choose by."""
    return assign(self, pred_instances.to(torch.float32), *args, **kwargs)


SimOTAAssigner.assign = assign_in_float32
