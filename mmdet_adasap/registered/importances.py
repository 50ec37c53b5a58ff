# Copyright (c) mmdet_adasap authors. Licensed under Apache-2.0.
"""The criteria of removal that a config can name."""

from ..pruning import MagnitudeImportance, TaylorImportance
from ..registry import IMPORTANCES

IMPORTANCES.register_module(module=MagnitudeImportance)
IMPORTANCES.register_module(module=TaylorImportance)
